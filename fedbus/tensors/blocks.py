"""What the codes share: tiles that stay in the cache, blocks with a scale, and what a code has to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedbus.core.protocol.frames import DEFAULT_RATIO, MAX_COUNT

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)

BLOCK = 4096
TILE = 16 * BLOCK

# No scale is smaller, so that a scale, its inverse and q * s are normal numbers: devices disagree on subnormal ones.
MIN_SCALE = np.float32(2.0**-100)

DecodeTile = Callable[[int, F32], None]
"""Write the elements from `start` (a multiple of BLOCK) on to `out`, float32 [up to TILE]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a frame is to be coded, beyond its code.

    `seed` and `start` (the frame's first element) drive stochastic rounding. `to_hidden`: the frame leads to the hidden
    params, see `codes_int`. `ratio` is the share of elements that topk keeps.
    """

    seed: int = 0
    start: int = 0
    to_hidden: bool = False
    ratio: float = DEFAULT_RATIO


class Workspace:
    """Buffers that serve one frame after the other: fresh memory costs a page fault for every 4 KiB, a third of int8.

    What `take` returned is overwritten when the same name is taken again.
    """

    def __init__(self) -> None:
        self._held: dict[str, U8] = {}

    def take(self, name: str, count: int, dtype: type[T]) -> NDArray[T]:
        """Return `count` elements of any content."""
        size = count * np.dtype(dtype).itemsize
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, np.uint8)
        return held[:size].view(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coder:
    """One code: how many bytes each plane has, and both directions.

    `plane_bytes(count, kept)` are the sizes for `count` elements, of which a `sparse` code carries `kept` (the others
    carry all). `encode(values [count], recipe, work)` returns planes of these sizes, which may lie in `work`.
    `decoder(planes, count)` returns what decodes one tile after the other, or raises DecodeError. `item_bytes` is the
    most that one element takes before entropy coding, without scales; a frame has at most `max_count` elements.
    """

    item_bytes: float
    plane_bytes: Callable[[int, int], tuple[int, ...]]
    encode: Callable[[F32, Recipe, Workspace], list[U8]]
    decoder: Callable[[Sequence[U8], int], DecodeTile]
    sparse: bool = False
    max_count: int = MAX_COUNT


def tiles(count: int) -> Iterator[slice]:
    """Cut [0, count) into tiles."""
    for start in range(0, count, TILE):
        yield slice(start, min(start + TILE, count))


def scale_count(count: int) -> int:
    """How many blocks, and so scales, `count` elements have."""
    return -(-count // BLOCK)


def scales_of(tile: slice) -> slice:
    """Where the scales of a tile stand."""
    return slice(tile.start // BLOCK, scale_count(tile.stop))


def blocks_of(values: F32) -> F32:
    """View [n] as [blocks, BLOCK]; a last block that is not full is padded with zeros in a copy."""
    missing = -values.size % BLOCK
    return (np.pad(values, (0, missing)) if missing else values).reshape(-1, BLOCK)


def largest(blocks: F32) -> F32:
    """Return max|x| of each block [blocks, 1], NaN where a value is not finite."""
    found: F32 = np.maximum(blocks.max(axis=1, keepdims=True), -blocks.min(axis=1, keepdims=True))
    return np.where(np.isfinite(found), found, np.float32(np.nan))


def power_of_two_above(value: F32) -> F32:
    """Return the smallest power of two above each value; NaN stays."""
    _, exponent = np.frexp(value)
    above: F32 = np.ldexp(np.float32(1), exponent)
    return np.where(np.isnan(value), value, above)


def unscale_(out: F32, scales: F32) -> None:
    """Multiply each block of `out` [n] by its scale."""
    whole = out.size // BLOCK
    blocks = out[: whole * BLOCK].reshape(whole, BLOCK)
    blocks *= scales[:whole, None]
    out[whole * BLOCK :] *= scales[whole:]
