"""int8 and int4: whole steps of a scale per block.

    update     q = round(x / s + u), u uniform in (-1/2, 1/2), so that E[q s] = x (QSGD, arXiv 1610.02132)
               s = max|x| / 127 (int8) or / 7 (int4), per block of 4096
    to hidden  q = round(x / s); s the power of two above that, for int4 also above min(rms(x), .75 max|x|)

A version is coded to the hidden params: x is what they lack, and what is rounded away is part of x the next time
(QAFeL, arXiv 2308.00263). That is error feedback, so nothing need be unbiased: rounding to nearest errs less, and steps
of int4 may be so wide that most elements stay zero. No error is larger than its x, that of the largest x is at most
half of it: what does not move any more arrives.

int4, two's complement: of each block (the last may be short) the first half is in the lower halves of the bytes, the
second half in the upper ones.

The noise u: each frame draws NOISE numbers from its seed; each tile adds, or subtracts, a window of them that begins at
a random place. Each u is uniform, so q s is unbiased element by element. Elements of two tiles share their |u| with
probability 1/4096 and an independent sign, so their errors are all but uncorrelated. Fresh numbers for every element
took as long as everything else together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedbus.tensors.blocks import (
    BLOCK,
    F32,
    MIN_SCALE,
    TILE,
    U8,
    Coder,
    DecodeTile,
    Recipe,
    Workspace,
    blocks_of,
    largest,
    power_of_two_above,
    scale_count,
    scales_of,
    tiles,
    unscale_,
)

INT8_LEVELS, INT4_LEVELS = 127, 7
HAIR = 1 + 2.0**-22
"""A scale is so much more than max|x| / levels that no rounding error takes x / s beyond the levels."""
WIDE_MAX = 0.75
"""A wide scale is a power of two above at most so much of max|x|: at most 1.5 max|x|."""

NOISE = 2 * TILE
_ALIGN = 16  # elements: windows begin at a cache line
# Odd 16-bit numbers over 2**16 are symmetric around 0 and never -1/2: an integer, zero above all, stays what it is.
_ODD = np.uint64(0x0001_0001_0001_0001)
_NOISE_STEP = np.float32(2.0**-16)
# Adding 1.5 * 2**23 to a small float rounds it to an integer and leaves that integer in the lowest bits.
_ROUND_TO_LOW_BITS = np.float32(1.5 * 2**23)
_HALF = BLOCK // 2


class _Noise:
    """Windows of TILE numbers in (-1/2, 1/2), for the tiles of one frame of `count` elements."""

    def __init__(self, recipe: Recipe, count: int, work: Workspace) -> None:
        bits = np.random.SFC64((recipe.seed, recipe.start))
        self._places: list[int] = bits.random_raw(-(-count // TILE)).tolist()
        size = NOISE if count > TILE else TILE
        odd = bits.random_raw(size // 4)
        odd |= _ODD
        self._numbers = work.take("noise", size, np.float32)
        np.multiply(odd.view(np.int16), _NOISE_STEP, out=self._numbers)

    def add_(self, scaled: F32, tile: int) -> None:
        """Add the noise of tile number `tile` to `scaled`, [up to TILE]."""
        place = self._places[tile]
        at = place % ((self._numbers.size - TILE) // _ALIGN + 1) * _ALIGN
        window = self._numbers[at : at + scaled.size]
        (np.subtract if place >> 63 else np.add)(scaled, window, out=scaled)


def _quantise(
    values: F32, levels: int, recipe: Recipe, scales: F32, work: Workspace
) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """Yield each tile with its steps q in the lowest bytes of [n] words, and write `scales` [blocks].

    The words are overwritten by the next tile.
    """
    noise = None if recipe.to_hidden else _Noise(recipe, values.size, work)
    for number, tile in enumerate(tiles(values.size)):
        blocks = blocks_of(values[tile])
        most = largest(blocks)
        scale = most * np.float32(HAIR / levels)
        if recipe.to_hidden:
            wide = np.minimum(_rms(blocks), most * WIDE_MAX) if levels == INT4_LEVELS else scale
            scale = power_of_two_above(np.maximum(scale, wide))
        scale = np.maximum(scale, MIN_SCALE)
        scales[scales_of(tile)] = scale[:, 0]
        scaled = work.take("scaled", blocks.size, np.float32)
        np.multiply(blocks, 1 / scale, out=scaled.reshape(blocks.shape))
        if noise is not None:
            noise.add_(scaled, number)
        scaled += _ROUND_TO_LOW_BITS
        yield tile, scaled.view(np.uint32)[: tile.stop - tile.start]


def _rms(blocks: F32) -> F32:
    """Return the root mean square of each block [blocks, 1].

    In float64, where the order of a sum does not decide between two powers of two.
    """
    rms: F32 = np.sqrt(np.square(blocks, dtype=np.float64).mean(axis=1, keepdims=True)).astype(np.float32)
    return rms


def _encode_int8(values: F32, recipe: Recipe, work: Workspace) -> list[U8]:
    codes = work.take("codes", values.size, np.uint8)
    scales = np.empty(scale_count(values.size), np.float32)
    for tile, words in _quantise(values, INT8_LEVELS, recipe, scales, work):
        np.copyto(codes[tile], words, casting="unsafe")
    return [codes, scales.view(np.uint8)]


def _int8_decoder(planes: Sequence[U8], _count: int) -> DecodeTile:
    codes, scales = planes[0].view(np.int8), planes[1].view(np.float32)

    def decode_(start: int, out: F32) -> None:
        tile = slice(start, start + out.size)
        np.copyto(out, codes[tile])
        unscale_(out, scales[scales_of(tile)])

    return decode_


def packed_bytes(count: int) -> int:
    """Bytes of `count` elements, two to a byte."""
    return (count + 1) // 2


def _encode_int4(values: F32, recipe: Recipe, work: Workspace) -> list[U8]:
    packed = work.take("packed", packed_bytes(values.size), np.uint8)
    scales = np.empty(scale_count(values.size), np.float32)
    for tile, words in _quantise(values, INT4_LEVELS, recipe, scales, work):
        steps = work.take("steps", words.size, np.uint8)
        np.copyto(steps, words, casting="unsafe")
        whole = steps.size // BLOCK
        at = tile.start // 2
        pairs = steps[: whole * BLOCK].reshape(whole, 2, _HALF)
        _pack_(pairs[:, 0], pairs[:, 1], packed[at : at + whole * _HALF].reshape(whole, _HALF))
        if rest := steps.size - whole * BLOCK:
            last = np.zeros((2, packed_bytes(rest)), np.uint8)
            last.reshape(-1)[:rest] = steps[whole * BLOCK :]
            _pack_(last[0], last[1], packed[at + whole * _HALF : packed_bytes(tile.stop)])
    return [packed, scales.view(np.uint8)]


def _pack_(low: U8, high: U8, out: U8) -> None:
    np.left_shift(high, 4, out=out)
    out |= low & 15


def _int4_decoder(planes: Sequence[U8], _count: int) -> DecodeTile:
    packed, scales = planes[0], planes[1].view(np.float32)

    def decode_(start: int, out: F32) -> None:
        tile = slice(start, start + out.size)
        whole = out.size // BLOCK
        border = start // 2 + whole * _HALF
        halves = out[: whole * BLOCK].reshape(whole, 2, _HALF)
        pairs = packed[start // 2 : border].reshape(whole, _HALF)
        _unpack_(pairs, halves[:, 0], pairs, halves[:, 1])
        if whole * BLOCK < out.size:
            rest, last = out[whole * BLOCK :], packed[border : packed_bytes(tile.stop)]
            low, high = rest[: last.size], rest[last.size :]
            _unpack_(last, low, last[: high.size], high)
        # 16 q was left in place of q
        unscale_(out, scales[scales_of(tile)] * np.float32(1 / 16))

    return decode_


def _unpack_(packed_low: U8, low: F32, packed_high: U8, high: F32) -> None:
    np.copyto(low, (packed_low << 4).view(np.int8))
    np.copyto(high, (packed_high & 0xF0).view(np.int8))


INT8 = Coder(item_bytes=1, plane_bytes=lambda n, _: (n, 4 * scale_count(n)), encode=_encode_int8, decoder=_int8_decoder)
INT4 = Coder(
    item_bytes=0.5,
    plane_bytes=lambda n, _: (packed_bytes(n), 4 * scale_count(n)),
    encode=_encode_int4,
    decoder=_int4_decoder,
)
