"""One way from params to frames: whatever of a training leaves a site is made here, and in a simulation the same.

    delta      params after training - base; of state that is not learnt its values; nothing new of what is frozen
    finite     or a TaskError that says what to look at first
    filters    in their order; all that follows sees only what they gave
    secant     travel and response, see `tensors.secant`
    residual   what the code left out of earlier updates is added (error feedback, see `tensors.feedback`)
    code       frames, and what they leave out: the next residual
    effort     what the training says of itself, with its secant

No vector is made on the way: the params become the delta, and that becomes what the code leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from torch import Tensor

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import DEFAULT_RATIO, Code
from fedbus.core.protocol.layout import Layout
from fedbus.tensors.codec import changed_values
from fedbus.tensors.feedback import encode_update_
from fedbus.tensors.secant import SecantProbe
from fedbus.training.finite import is_finite, not_finite_error
from fedbus.training.losses import Losses

T = TypeVar("T")

Filter = Callable[[Tensor], Tensor]
"""A step between delta and code, for privacy: takes float32 [numel], which it may change, and gives such a vector."""


class Residual(Protocol):
    """What the code left out of a site's earlier updates."""

    def add_to_(self, delta: Tensor) -> None:
        """Add it to a delta, float32 [numel]."""

    def keep(self, left: Tensor) -> None:
        """Take what this update leaves out, float32 [numel], only read: the residual of the next."""


class UpdateMaker:
    """Makes the updates of one site for one job; between them it keeps the samples of the secant."""

    def __init__(
        self,
        layout: Layout,
        code: Code,
        *,
        chunk_bytes: int,
        ratio: float = DEFAULT_RATIO,
        filters: Sequence[Filter] = (),
        frozen: Collection[str] = (),
    ) -> None:
        """`frozen`: names in the layout; whatever a training made of these, no update changes them."""
        self._layout = layout
        self._code = code
        self._chunk_bytes = chunk_bytes
        self._ratio = ratio
        self._filters = tuple(filters)
        self._frozen = [slice(*place) for name, place in layout.slices().items() if name in frozen]
        self._secants = SecantProbe(layout)

    def make_(
        self,
        params: Tensor,
        base: Tensor,
        effort: Effort,
        *,
        losses: Losses,
        seed: int,
        take: Callable[[Iterator[bytes]], T],
        residual: Residual | None = None,
    ) -> tuple[T, Effort]:
        """Return what `take` makes of the frames of an update, and the effort with its secant.

        params: those after training, float32 [numel]; of no use afterwards. base: those before it, only read.
        effort: what the training says of itself. seed: drives the code. Raises TaskError for params that are not
        finite; nothing was taken then, and the secant knows nothing of that training.
        """
        delta = self._delta_(params, base, losses, steps=effort.steps)
        for apply in self._filters:
            delta = apply(delta)
        travel, response = self._secants.measure(base, delta)
        changed = changed_values(delta, base, self._layout)
        if residual is not None:
            residual.add_to_(delta)
        taken, distortion = encode_update_(
            delta,
            self._layout,
            self._code,
            take=take,
            seed=seed,
            chunk_bytes=self._chunk_bytes,
            ratio=self._ratio,
            changed=changed,
        )
        if residual is not None:
            residual.keep(delta)
        return taken, replace(effort, travel=travel, response=distortion.counted(response))

    def _delta_(self, params: Tensor, base: Tensor, losses: Losses, *, steps: int) -> Tensor:
        """Values, and the delta of what is learnt."""
        learnt = slice(self._layout.value_numel, self._layout.numel)
        params[learnt].sub_(base[learnt])
        for place in self._frozen:
            params[place].copy_(base[place])
        if not is_finite(params):
            raise not_finite_error(params, base, self._layout, losses, steps=steps)
        return params
