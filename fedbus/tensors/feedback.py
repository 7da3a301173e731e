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
