"""State that is not learnt, of a version: combined from the values that sites hold, frame by frame.

    values = sum(factor_i values_i) / sum(factor_i)          the newest of every site that counts, factors > 0
    or, with `trim`, the mean without the `trim` lowest and highest of each coordinate, all sites alike

over the sites whose update has the frame (it leaves out what training has not changed); without any it stays as it is.
Never a sum of differences: two sites that each bring a running variance from 1 to 0 would bring it to -1.

Whose values count, and how much: `fedbus.core.rules.values`. Memory: one frame; with `trim` one frame of every site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fedbus.core.protocol.layout import Layout
from fedbus.tensors.codec import decode_values
from fedbus.tensors.robust import ranked

Frames = Iterable[bytes | memoryview]


def mean_values_(out: Tensor, bodies: Iterable[tuple[float, Frames]], layout: Layout) -> None:
    """Write the weighted mean of the values of (factor, frames) to `out`, float32 [numel]; what is learnt stays.

    A running mean, so that no sum overflows and what all agree on comes out exactly. Raises DecodeError; `out` is of no
    use then.
    """
    weights: dict[int, float] = {}
    for factor, frames in bodies:
        for start, values in decode_values(frames, layout):
            weights[start] = weights.get(start, 0.0) + factor
            out[start : start + len(values)].lerp_(values, factor / weights[start])


def trimmed_values_(out: Tensor, bodies: Sequence[Frames], layout: Layout, *, trim: int) -> None:
    """Write the trimmed mean of the values of frames to `out`, float32 [numel]; what is learnt stays.

    Where fewer than 2 trim + 1 bodies have a frame, as many are trimmed as leave one or two: the median.
    """
    readers = [_Reader(decode_values(frames, layout)) for frames in bodies]
    for start, stop in layout.value_ranges():
        rows = [values for reader in readers if (values := reader.at(start)) is not None]
        if rows:
            cut = min(trim, (len(rows) - 1) // 2)
            left = ranked(torch.stack(rows))[cut : len(rows) - cut]
            out[start:stop] = torch.stack(left).mean(0)


class _Reader:
    """The values of one body, asked for by start, in order."""

    def __init__(self, frames: Iterator[tuple[int, Tensor]]) -> None:
        self._frames = frames
        self._next = next(frames, None)

    def at(self, start: int) -> Tensor | None:
        if self._next is None or self._next[0] != start:
            return None
        (_, values), self._next = self._next, next(self._frames, None)
        return values
