"""The codes: float32 elements to byte planes and back, on the CPU. `codes_torch` does the same on other devices.

What lives here: one table, `CODERS`, and the codes that keep floats. What may not: frames, zstd (see `codec`).

    fp32   exact; a plane with the lower half of the mantissa, then 2 planes
    fp16   y = x / s in half precision, s a power of two per block of 4096 so that 2**14 <= max|y| < 2**15: no overflow,
           and relative error <= 2**-11 down to 2**-28 of the block's largest; 2 planes and the scales
    bf16   the upper half of fp32, rounded to nearest; 2 planes
    int8   whole steps of a scale per block of 4096, see `codes_int`; 1 plane and the scales
    int4   the same with two elements to a byte
    topk   the largest few of a frame, by place, as int8; 3 planes with places, 1 with values, the scales (`codes_topk`)

A byte plane k holds byte k of every element: the planes with sign and exponent compress, those of the mantissa do not
(so the lower 16 bits of fp32 stay together: as two planes they only took longer).
A block with a value that is not finite decodes to NaN everywhere (fp16, int8, int4), so that a guard sees it.
All work is done in tiles of 256 KiB, which stay in the cache. Bytes are little-endian, as the machines are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedbus.core.protocol.frames import Code
from fedbus.tensors import codes_int, codes_topk
from fedbus.tensors.blocks import (
    F32,
    MIN_SCALE,
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

Words = NDArray[np.unsignedinteger[Any]]


def _split_(words: Words, planes: U8) -> None:
    for k, plane in enumerate(planes):
        np.copyto(plane, words >> (8 * k) if k else words, casting="unsafe")


def _merge_(planes: Sequence[U8], words: Words) -> None:
    np.copyto(words, planes[-1])
    for plane in reversed(planes[:-1]):
        words <<= 8
        words |= plane


def _encode_fp32(values: F32, _recipe: Recipe, work: Workspace) -> list[U8]:
    low = work.take("low", values.size, np.uint16)
    upper = work.take("upper", 2 * values.size, np.uint8).reshape(2, -1)
    for tile in tiles(values.size):
        words = values[tile].view(np.uint32)
        np.copyto(low[tile], words, casting="unsafe")
        _split_((words >> 16).astype(np.uint16), upper[:, tile])
    return [low.view(np.uint8), *upper]


def _fp32_decoder(planes: Sequence[U8], _count: int) -> DecodeTile:
    low = planes[0].view(np.uint16)

    def decode_(start: int, out: F32) -> None:
        tile = slice(start, start + out.size)
        words = out.view(np.uint32)
        _merge_([plane[tile] for plane in planes[1:]], words)
        words <<= 16
        words |= low[tile]

    return decode_


def _encode_bf16(values: F32, _recipe: Recipe, work: Workspace) -> list[U8]:
    planes = work.take("planes", 2 * values.size, np.uint8).reshape(2, -1)
    for tile in tiles(values.size):
        upper = torch.from_numpy(values[tile]).to(torch.bfloat16).view(torch.uint16)
        _split_(upper.numpy(), planes[:, tile])
    return list(planes)


def _bf16_decoder(planes: Sequence[U8], _count: int) -> DecodeTile:
    def decode_(start: int, out: F32) -> None:
        words = out.view(np.uint32)
        _merge_([plane[start : start + out.size] for plane in planes], words)
        words <<= 16

    return decode_


def _encode_fp16(values: F32, _recipe: Recipe, work: Workspace) -> list[U8]:
    planes = work.take("planes", 2 * values.size, np.uint8).reshape(2, -1)
    scales = np.empty(scale_count(values.size), np.float32)
    for tile in tiles(values.size):
        blocks = blocks_of(values[tile])
        scale = np.maximum(power_of_two_above(largest(blocks)) / np.float32(2**15), MIN_SCALE)
        scales[scales_of(tile)] = scale[:, 0]
        half = torch.from_numpy(blocks * (1 / scale)).to(torch.float16).view(torch.uint16)
        _split_(half.numpy().reshape(-1)[: tile.stop - tile.start], planes[:, tile])
    return [*planes, scales.view(np.uint8)]


def _fp16_decoder(planes: Sequence[U8], _count: int) -> DecodeTile:
    *bytes_of, scale_bytes = planes
    scales = scale_bytes.view(np.float32)

    def decode_(start: int, out: F32) -> None:
        tile = slice(start, start + out.size)
        half = np.empty(out.size, np.uint16)
        _merge_([plane[tile] for plane in bytes_of], half)
        torch.from_numpy(out).copy_(torch.from_numpy(half).view(torch.float16))
        unscale_(out, scales[scales_of(tile)])

    return decode_


CODERS: dict[Code, Coder] = {
    Code.FP32: Coder(item_bytes=4, plane_bytes=lambda n, _: (2 * n, n, n), encode=_encode_fp32, decoder=_fp32_decoder),
    Code.FP16: Coder(
        item_bytes=2,
        plane_bytes=lambda n, _: (n, n, 4 * scale_count(n)),
        encode=_encode_fp16,
        decoder=_fp16_decoder,
    ),
    Code.BF16: Coder(item_bytes=2, plane_bytes=lambda n, _: (n, n), encode=_encode_bf16, decoder=_bf16_decoder),
    Code.INT8: codes_int.INT8,
    Code.INT4: codes_int.INT4,
    Code.TOPK: codes_topk.TOPK,
}
