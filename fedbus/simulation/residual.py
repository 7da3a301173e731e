"""What a simulated site's code left out of its updates: the residual of error feedback, in memory.

A simulated site has one update on its way at a time. When that is refused, the residual is again what it was before.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HeldResidual:
    """The residual of one site; of an update that is on its way also the one before it."""

    def __init__(self, numel: int) -> None:
        self._held = torch.zeros(numel)
        self._before: Tensor | None = None

    def add_to_(self, delta: Tensor) -> None:
        """Add it to a delta, float32 [numel]."""
        delta.add_(self._held)

    def keep(self, left: Tensor) -> None:
        """Take what this update leaves out, float32 [numel], only read."""
        self._before, self._held = self._held, left.clone()

    def decided(self, *, refused: bool) -> None:
        """The update that was on its way is folded or refused. Twice is once."""
        if refused and self._before is not None:
            self._held = self._before
        self._before = None
