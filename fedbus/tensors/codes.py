"""The codes: float32 elements to byte planes and back.

What lives here: one table, `CODERS`, from a code to its encode and decode. What may not: frames, zstd (see `codec`).

    fp32   exact; a plane with the lower half of the mantissa, then 2 planes
    fp16   y = x / s in half precision, s a power of two per block of 4096 so that 2**14 <= max|y| < 2**15: no overflow,
           and relative error <= 2**-11 down to 2**-28 of the block's largest; 2 planes and the scales
    bf16   the upper half of fp32, rounded to nearest; 2 planes
    int8   q = round(x / s + u), u uniform in (-1/2, 1/2): stochastic rounding, E[q s] = x (QSGD, Alistarh et al. 2017);
           s = max|x| / 127 per block of 4096, or the next power of two; 1 plane and the scales

A byte plane k holds byte k of every element: the planes with sign and exponent compress, those of the mantissa do not
(so the lower 16 bits of fp32 stay together: as two planes they only took longer).
A block with a value that is not finite decodes to NaN everywhere (fp16, int8), so that a guard sees it.
All work is done in tiles of 256 KiB, which stay in the cache. Bytes are little-endian, as the machines are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedbus.core.frames import Code

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Words = NDArray[np.unsignedinteger[Any]]

BLOCK = 4096
TILE = 16 * BLOCK

# No scale is smaller, so that a scale, its inverse and q * s are normal numbers: devices disagree on subnormal ones.
_MIN_SCALE = np.float32(2.0**-100)
# Adding 1.5 * 2**23 to a small float rounds it to an integer and leaves that integer in the lowest bits.
_ROUND_TO_LOW_BITS = np.float32(1.5 * 2**23)
# Odd 16-bit numbers over 2**16 are symmetric around 0 and never -1/2: an integer, zero above all, stays what it is.
_ODD = np.uint64(0x0001_0001_0001_0001)
_NOISE_STEP = np.float32(2.0**-16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coder:
    """One code: how many bytes each plane has for n elements, and both directions.

    `encode(values [n], seed, power_of_two)` returns the planes, `decode_(planes, out [n])` fills `out`; planes have
    the sizes that `plane_bytes(n)` says. `item_bytes` is what one element takes before entropy coding, without scales.
    """

    item_bytes: int
    plane_bytes: Callable[[int], tuple[int, ...]]
    encode: Callable[[F32, tuple[int, int], bool], list[U8]]
    decode_: Callable[[Sequence[U8], F32], None]


def _tiles(count: int) -> Iterator[slice]:
    for start in range(0, count, TILE):
        yield slice(start, min(start + TILE, count))


def _split_(words: Words, planes: U8) -> None:
    for k, plane in enumerate(planes):
        np.copyto(plane, words >> (8 * k) if k else words, casting="unsafe")


def _merge_(planes: Sequence[U8], words: Words) -> None:
    np.copyto(words, planes[-1])
    for plane in reversed(planes[:-1]):
        words <<= 8
        words |= plane


# ---------------------------------------------------------------- fp32, bf16


def _encode_fp32(values: F32, _seed: tuple[int, int], _power_of_two: bool) -> list[U8]:
    low = np.empty(values.size, np.uint16)
    upper = np.empty((2, values.size), np.uint8)
    for tile in _tiles(values.size):
        words = values[tile].view(np.uint32)
        np.copyto(low[tile], words, casting="unsafe")
        _split_((words >> 16).astype(np.uint16), upper[:, tile])
    return [low.view(np.uint8), *upper]


def _decode_fp32_(planes: Sequence[U8], out: F32) -> None:
    low = planes[0].view(np.uint16)
    for tile in _tiles(out.size):
        words = out[tile].view(np.uint32)
        _merge_([plane[tile] for plane in planes[1:]], words)
        words <<= 16
        words |= low[tile]


def _encode_bf16(values: F32, _seed: tuple[int, int], _power_of_two: bool) -> list[U8]:
    planes = np.empty((2, values.size), np.uint8)
    for tile in _tiles(values.size):
        upper = torch.from_numpy(values[tile]).to(torch.bfloat16).view(torch.uint16)
        _split_(upper.numpy(), planes[:, tile])
    return list(planes)


def _decode_bf16_(planes: Sequence[U8], out: F32) -> None:
    for tile in _tiles(out.size):
        words = out[tile].view(np.uint32)
        _merge_([plane[tile] for plane in planes], words)
        words <<= 16


# ---------------------------------------------------------------- blocks and their scales: fp16, int8


def _scale_count(count: int) -> int:
    return -(-count // BLOCK)


def _blocks(values: F32) -> F32:
    """View [n] as [blocks, 4096]; a last block that is not full is padded with zeros in a copy."""
    missing = -values.size % BLOCK
    return (np.pad(values, (0, missing)) if missing else values).reshape(-1, BLOCK)


def _largest(blocks: F32) -> F32:
    """Return max|x| of each block [blocks, 1], NaN where a value is not finite."""
    largest: F32 = np.maximum(blocks.max(axis=1, keepdims=True), -blocks.min(axis=1, keepdims=True))
    return np.where(np.isfinite(largest), largest, np.float32(np.nan))


def _power_of_two_above(value: F32) -> F32:
    """Return the smallest power of two above each value; NaN stays."""
    _, exponent = np.frexp(value)
    above: F32 = np.ldexp(np.float32(1), exponent)
    return np.where(np.isnan(value), value, above)


def _encode_fp16(values: F32, _seed: tuple[int, int], _power_of_two: bool) -> list[U8]:
    planes = np.empty((2, values.size), np.uint8)
    scales = np.empty(_scale_count(values.size), np.float32)
    for tile in _tiles(values.size):
        blocks = _blocks(values[tile])
        scale = np.maximum(_power_of_two_above(_largest(blocks)) / np.float32(2**15), _MIN_SCALE)
        scales[_scales_of(tile)] = scale[:, 0]
        half = torch.from_numpy(blocks * (1 / scale)).to(torch.float16).view(torch.uint16)
        _split_(half.numpy().reshape(-1)[: tile.stop - tile.start], planes[:, tile])
    return [*planes, scales.view(np.uint8)]


def _decode_fp16_(planes: Sequence[U8], out: F32) -> None:
    *bytes_of, scale_bytes = planes
    for tile in _tiles(out.size):
        half = np.empty(tile.stop - tile.start, np.uint16)
        _merge_([plane[tile] for plane in bytes_of], half)
        torch.from_numpy(out[tile]).copy_(torch.from_numpy(half).view(torch.float16))
    _unscale_(out, scale_bytes)


def _encode_int8(values: F32, seed: tuple[int, int], power_of_two: bool) -> list[U8]:
    noise = np.random.SFC64(seed)
    codes = np.empty(values.size, np.uint8)
    scales = np.empty(_scale_count(values.size), np.float32)
    for tile in _tiles(values.size):
        blocks = _blocks(values[tile])
        # A hair more than max|x| / 127, so that no rounding error takes x / s beyond 127.
        scale = _largest(blocks) * np.float32((1 + 2.0**-22) / 127)
        scale = np.maximum(_power_of_two_above(scale) if power_of_two else scale, _MIN_SCALE)
        scales[_scales_of(tile)] = scale[:, 0]
        scaled = blocks * (1 / scale)
        bits = noise.random_raw(scaled.size // 4) | _ODD
        scaled += bits.view(np.int16).reshape(scaled.shape) * _NOISE_STEP
        scaled += _ROUND_TO_LOW_BITS
        low = scaled.view(np.uint32).reshape(-1)[: tile.stop - tile.start]
        np.copyto(codes[tile], low, casting="unsafe")
    return [codes, scales.view(np.uint8)]


def _decode_int8_(planes: Sequence[U8], out: F32) -> None:
    codes, scale_bytes = planes
    np.copyto(out, codes.view(np.int8))
    _unscale_(out, scale_bytes)


def _scales_of(tile: slice) -> slice:
    return slice(tile.start // BLOCK, _scale_count(tile.stop))


def _unscale_(out: F32, scale_bytes: U8) -> None:
    scales = scale_bytes.view(np.float32)
    whole = out.size // BLOCK
    blocks = out[: whole * BLOCK].reshape(whole, BLOCK)
    blocks *= scales[:whole, None]
    out[whole * BLOCK :] *= scales[whole:]


CODERS: dict[Code, Coder] = {
    Code.FP32: Coder(item_bytes=4, plane_bytes=lambda n: (2 * n, n, n), encode=_encode_fp32, decode_=_decode_fp32_),
    Code.FP16: Coder(
        item_bytes=2,
        plane_bytes=lambda n: (n, n, 4 * _scale_count(n)),
        encode=_encode_fp16,
        decode_=_decode_fp16_,
    ),
    Code.BF16: Coder(item_bytes=2, plane_bytes=lambda n: (n,) * 2, encode=_encode_bf16, decode_=_decode_bf16_),
    Code.INT8: Coder(
        item_bytes=1,
        plane_bytes=lambda n: (n, 4 * _scale_count(n)),
        encode=_encode_int8,
        decode_=_decode_int8_,
    ),
}
