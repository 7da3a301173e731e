"""The buffer's content: the weighted sum of the deltas folded since the last commit.

    sum = sum over updates of weight * delta        mean delta = sum / normaliser

The weights come from the core (staleness, num_examples, clip). Each product is rounded to float32 before it is added:
no fused multiply-add, so that every device and every replay give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedbus.tensors.tiles import tiles

# A megabyte: the product stays in the cache, and long turns between the two vectors in memory keep both streaming.
# 1/4 of it reached half of the memory's bandwidth, this reaches 3/4.
_TILE = 1 << 18


class Accumulator:
    """A float32 sum [numel] of weighted deltas; owns one vector."""

    def __init__(self, numel: int, *, device: torch.device | str = "cpu", of: Tensor | None = None) -> None:
        """Begin at zero, or at `of`, float32 [numel], which becomes the sum's own."""
        self._sum = torch.zeros(numel, dtype=torch.float32, device=device) if of is None else of

    @property
    def sum(self) -> Tensor:
        """The sum itself, to be read only."""
        return self._sum

    def fold_(self, delta: Tensor, weight: float) -> None:
        """Add weight * delta, float32 [numel]; `delta` is only read."""
        product = torch.empty(min(_TILE, delta.numel()), dtype=torch.float32, device=delta.device)
        for total, part in tiles(self._sum, delta, size=_TILE):
            total.add_(torch.mul(part, weight, out=product[: part.numel()]))

    def mean(self, normaliser: float, *, out: Tensor | None = None) -> Tensor:
        """Return the mean delta, sum / normaliser, into `out` when given; ValueError unless it is positive."""
        if not normaliser > 0:
            raise ValueError(f"the normaliser must be positive, not {normaliser}: is the buffer empty?")
        return torch.div(self._sum, normaliser, out=out)

    def reset_(self) -> None:
        """Empty the buffer."""
        self._sum.zero_()
