"""Robust rules on tensors: K deltas at once, piece by piece, from the bodies in which they came.

What lives here: inner products of deltas, and means, trimmed means and medians over them. What may not: which deltas
are believed, by which rule (see `fedbus.core.rules.robust`, which has the papers).

Memory: one decoded frame of every body and a slab [K, slab], never K models. Frames need not be cut alike: each body
is read at its own frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbus.core.protocol.frames import FrameHeader
from fedbus.core.protocol.layout import Layout
from fedbus.errors import DecodeError
from fedbus.tensors.codec import decode_frame

SLAB = 1 << 16
"""Elements of a slab: 256 KiB of each delta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What one site has in the buffer: sum(factor * delta) over `bodies`, pairs of factor and frames to read once."""

    bodies: tuple[tuple[float, Iterable[bytes | memoryview]], ...]


class _Body:
    """What one body says of what is learnt, in order, decoded frame by frame as it is asked for."""

    def __init__(self, frames: Iterable[bytes | memoryview], layout: Layout) -> None:
        self._frames = (f for f in frames if FrameHeader.parse(f).start >= layout.value_numel)
        self._layout = layout
        self._decoded = torch.empty(0)
        self._start = layout.value_numel

    def read(self, start: int, stop: int) -> Tensor:
        """Return the float32 elements [start, stop); each call goes on where the one before stopped."""
        parts = []
        while start < stop:
            if start == self._start + len(self._decoded):
                self._next_frame()
            part = self._decoded[start - self._start : stop - self._start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _next_frame(self) -> None:
        covered = self._start + len(self._decoded)
        frame = next(self._frames, None)
        if frame is None:
            raise DecodeError(f"the frames cover {covered} of {self._layout.numel} elements: some are missing")
        header, self._decoded = decode_frame(frame, self._layout)
        if header.start != covered:
            raise DecodeError(f"the next frame must start at element {covered}, this one starts at {header.start}")
        self._start = header.start


def slabs(slots: Sequence[Slot], layout: Layout) -> Iterator[tuple[int, Tensor]]:
    """Yield (start, float32 [K, slab]) over what is learnt: row i is slot i's delta from element `start` of it on.

    Each product is rounded to float32 before it is added, as in a fold. Raises DecodeError as decoding does.
    """
    readers = [[(factor, _Body(frames, layout)) for factor, frames in slot.bodies] for slot in slots]
    for start in range(layout.value_numel, layout.numel, SLAB):
        stop = min(start + SLAB, layout.numel)
        slab = torch.zeros(len(slots), stop - start)
        for row, bodies in zip(slab, readers, strict=True):
            for factor, body in bodies:
                row.add_(body.read(start, stop) * factor)
        yield start - layout.value_numel, slab


def gram(slots: Sequence[Slot], layout: Layout) -> list[list[float]]:
    """Return the inner products [K, K] of the slots' deltas, summed in float64."""
    total = torch.zeros(len(slots), len(slots), dtype=torch.float64)
    for _, slab in slabs(slots, layout):
        wide = slab.double()
        total.add_(wide @ wide.T)
    found: list[list[float]] = total.tolist()
    return found


def mean_(out: Tensor, slots: Sequence[Slot], layout: Layout, *, normaliser: float) -> Tensor:
    """Write sum(slots) / normaliser to `out`, float32 [learnt_numel] on any device: 0 without slots.

    They are added in their order.
    """
    for start, slab in slabs(slots, layout):
        total = torch.zeros(slab.shape[1])
        for row in slab:
            total.add_(row)
        out[start : start + slab.shape[1]].copy_(total.div_(normaliser))
    return out


def trimmed_mean_(out: Tensor, slots: Sequence[Slot], layout: Layout, *, trim: int) -> Tensor:
    """Write to `out` each coordinate's mean without its `trim` lowest and `trim` highest of the K values.

    ValueError unless some are left.
    """
    left = len(slots) - 2 * trim
    if left < 1:
        raise ValueError(f"of {len(slots)} deltas none is left without {trim} at either end")
    for start, slab in slabs(slots, layout):
        total = torch.zeros(slab.shape[1])
        for row in ranked(slab)[trim : trim + left]:
            total.add_(row)
        out[start : start + slab.shape[1]].copy_(total.div_(left))
    return out


def ranked(slab: Tensor) -> list[Tensor]:
    """Return the rows of [K, slab] sorted coordinate by coordinate, lowest first.

    An odd-even transposition network: for the few rows of a buffer six times as fast as a sort along them.
    """
    rows = list(slab)
    for turn in range(len(rows)):
        for low in range(turn % 2, len(rows) - 1, 2):
            first, second = rows[low], rows[low + 1]
            rows[low], rows[low + 1] = torch.minimum(first, second), torch.maximum(first, second)
    return rows


def median_(out: Tensor, slots: Sequence[Slot], layout: Layout) -> Tensor:
    """Write to `out` the median of each coordinate; of an even number of values the mean of the middle two."""
    return trimmed_mean_(out, slots, layout, trim=(len(slots) - 1) // 2)
