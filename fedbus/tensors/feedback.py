"""Error feedback: what a biased code leaves out of one update is part of the next (Karimireddy et al. 2019).

    c  = C(delta + e)                 what is sent: delta of this training, e the residual of this site, 0 at first
    e' = delta + e - decoded(c)       so that the sum of all that was sent, plus e, is the sum of all deltas

What lives here: this arithmetic, on vectors. What may not: files (the site keeps e in them, see `store.residuals`).

e is in units of deltas, whatever version they are from, and is not weighted by staleness. An update that was refused
has brought nothing, neither its delta nor its share of e: that share goes back,

    e <- e + (e before it - e after it)        = e before it, when nothing was sent since

but not its delta: deltas are refused because they are too old, too large or not finite, and would be so again. An
update that is sent again is the same update. In float32 the identity holds to rounding (a value kept by topk differs
from what it decodes to by at most 1/127 of the largest in its block; differences are rounded once).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from fedbus.core.protocol.frames import DEFAULT_RATIO, Code, FrameHeader
from fedbus.core.protocol.layout import Layout
from fedbus.tensors.codec import DEFAULT_CHUNK_BYTES, decode_fold_, encode
from fedbus.tensors.secant import Distortion
from fedbus.tensors.tiles import tiles

T = TypeVar("T")


def encode_update_(
    target: Tensor,
    layout: Layout,
    code: Code,
    *,
    take: Callable[[Iterator[bytes]], T],
    seed: int,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ratio: float = DEFAULT_RATIO,
    changed: Collection[int] | None = None,
) -> tuple[T, Distortion]:
    """Return what `take` makes of the frames of `target`, float32 [numel], and the code's distortion.

    `target` holds values and the delta, with error feedback delta + residual; `changed` values are sent, see `encode`.
    Of a coarse code it becomes what the frames leave out, the next residual, which is zero where values are; of the
    others it is only read, and the distortion is none. No second vector is made.
    """
    frames = encode(target, layout, code, chunk_bytes=chunk_bytes, seed=seed, ratio=ratio, changed=changed)
    if not code.is_coarse:
        return take(frames), Distortion()
    learnt = target[layout.value_numel :]
    whole = _squared_norm(learnt)
    taken = take(_leaving_(target, frames, layout))
    target[: layout.value_numel].zero_()
    return taken, Distortion(whole=whole, left=_squared_norm(learnt), comes_later=code.is_biased)


def _leaving_(target: Tensor, frames: Iterator[bytes], layout: Layout) -> Iterator[bytes]:
    for frame in frames:
        if FrameHeader.parse(frame).start >= layout.value_numel:
            decode_fold_(target, frame, layout, -1.0)
        yield frame


def _squared_norm(flat: Tensor) -> float:
    """In float32, four times as fast as in float64: of a share of two norms three digits matter."""
    return sum(float(part @ part) for (part,) in tiles(flat, size=1 << 20))


class ErrorFeedback:
    """What one site sends under one code, with all its memory: for simulations, where nothing is killed.

    With a code that is not biased it only encodes and holds nothing. Otherwise it holds `state`, and one more vector
    for every update that was neither `accepted` nor `refused` yet. An update is known by its seed, which no other has.
    `distortion` is that of the last update that was encoded.
    """

    def __init__(
        self,
        layout: Layout,
        code: Code,
        *,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        ratio: float = DEFAULT_RATIO,
        device: torch.device | str = "cpu",
    ) -> None:
        self._layout = layout
        self._code = code
        self._chunk_bytes = chunk_bytes
        self._ratio = ratio
        self.state: Tensor | None = torch.zeros(layout.numel, device=device) if code.is_biased else None
        self._undecided: dict[int, Tensor] = {}  # e before - e after; of the newest one e before
        self._newest: int | None = None
        self.distortion = Distortion()

    def encode(self, delta: Tensor, *, seed: int, changed: Collection[int] | None = None) -> list[bytes]:
        """Return the frames of one update; `delta`, float32 [numel] of values and deltas, is only read."""
        target = delta
        if self.state is not None:
            self._close_newest()
            self._undecided[seed], self._newest = self.state.clone(), seed
            target = self.state.add_(delta)
        elif self._code.is_coarse:
            target = delta.clone()
        frames, self.distortion = encode_update_(
            target,
            self._layout,
            self._code,
            take=list,
            seed=seed,
            chunk_bytes=self._chunk_bytes,
            ratio=self._ratio,
            changed=changed,
        )
        return frames

    def accepted(self, seed: int) -> None:
        """The update of `seed` was folded: what was left out of it stays in `state`."""
        self._undecided.pop(seed, None)

    def refused(self, seed: int) -> None:
        """The update of `seed` was refused: `state` is what it would be without it. Twice is once."""
        held = self._undecided.pop(seed, None)
        if held is None or self.state is None:
            return
        if seed == self._newest:
            self.state.copy_(held)
        else:
            self._close_newest()
            self.state.add_(held)
        self._newest = None

    def _close_newest(self) -> None:
        """`state` is about to change: from now on the newest one is known by its difference."""
        newest = None if self._newest is None else self._undecided.get(self._newest)
        if newest is not None and self.state is not None:
            newest.sub_(self.state)
        self._newest = None
