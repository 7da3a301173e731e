"""The codes as torch operations, for vectors that live on another device than the CPU (see `codes` for what they do).

The planes are those of `codes`, and what they decode to is the same to the bit: only copies, exact conversions and one
rounded multiplication by a scale are made. What is encoded may differ in its noise, never in its bounds.
A whole frame is done at once: such a device has no cache to be cut for. Only planes pass between it and the host,
through pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.errors import DecodeError
from fedbus.tensors.blocks import BLOCK, MIN_SCALE, U8, Recipe
from fedbus.tensors.codes_int import HAIR, INT4_LEVELS, INT8_LEVELS, WIDE_MAX, packed_bytes
from fedbus.tensors.codes_topk import PLACE_BYTES, kept_count

_HALF = BLOCK // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchCoder:
    """Both directions of one code: values float32 [count], planes uint8, all on one device."""

    encode: Callable[[Tensor, Recipe], list[Tensor]]
    decode: Callable[[Sequence[Tensor], int], Tensor]


def to_host(planes: Sequence[Tensor]) -> list[U8]:
    """Bring planes to the host in one copy."""
    joined = torch.cat(list(planes))
    host = torch.empty(joined.shape, dtype=torch.uint8, pin_memory=joined.is_cuda)
    host.copy_(joined, non_blocking=joined.is_cuda)
    if joined.is_cuda:
        torch.cuda.current_stream(joined.device).synchronize()
    return list(np.split(host.numpy(), np.cumsum([plane.numel() for plane in planes])[:-1]))


def decode(code: Code, planes: Sequence[U8], count: int, device: torch.device) -> Tensor:
    """Return the elements of a frame, float32 [count] on `device`; DecodeError for a place outside the frame."""
    sizes = [plane.size for plane in planes]
    host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.concatenate(planes, out=host.numpy())
    # each plane gets memory of its own, aligned for what it holds
    moved = [plane.clone() for plane in torch.split(host.to(device, non_blocking=True), sizes)]
    return CODERS[code].decode(moved, count)


# ---------------------------------------------------------------- floats


def _bytes_of(numbers: Tensor) -> Tensor:
    """View [n] numbers as their bytes, uint8 [n, bytes of each]."""
    return numbers.view(torch.uint8).view(numbers.numel(), -1)


def _encode_fp32(values: Tensor, _recipe: Recipe) -> list[Tensor]:
    parts = _bytes_of(values)
    return [parts[:, :2].reshape(-1), parts[:, 2].contiguous(), parts[:, 3].contiguous()]


def _decode_fp32(planes: Sequence[Tensor], count: int) -> Tensor:
    low, *upper = planes
    return torch.cat([low.view(count, 2), torch.stack(upper, 1)], 1).view(torch.float32).view(count)


def _encode_bf16(values: Tensor, _recipe: Recipe) -> list[Tensor]:
    return list(_bytes_of(values.bfloat16()).T.contiguous())


def _decode_bf16(planes: Sequence[Tensor], count: int) -> Tensor:
    return torch.stack(list(planes), 1).view(torch.bfloat16).view(count).float()


def _encode_fp16(values: Tensor, _recipe: Recipe) -> list[Tensor]:
    blocks = _blocks(values)
    scale = _power_of_two_above(_largest(blocks) * 2.0**-15)
    half = (blocks * (1 / scale)).half().view(-1)[: values.numel()]
    return [*_bytes_of(half).T.contiguous(), scale.view(torch.uint8).view(-1)]


def _decode_fp16(planes: Sequence[Tensor], count: int) -> Tensor:
    *parts, scales = planes
    return _unscaled(torch.stack(parts, 1).view(torch.float16).view(count).float(), scales)


# ---------------------------------------------------------------- blocks and scales


def _blocks(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values, (0, -values.numel() % BLOCK)).view(-1, BLOCK)


def _largest(blocks: Tensor) -> Tensor:
    """Return max|x| of each block [blocks, 1], NaN where a value is not finite."""
    found = blocks.abs().amax(dim=1, keepdim=True)
    return torch.where(found.isfinite(), found, torch.nan)


def _power_of_two_above(scale: Tensor) -> Tensor:
    """Return the smallest power of two above each scale, at least MIN_SCALE; NaN stays. Made of its bits: exact."""
    _, exponent = torch.frexp(scale.clamp(min=float(MIN_SCALE) / 2))
    above = ((exponent.clamp(max=127) + 127) << 23).view(torch.float32)
    return torch.where(scale.isnan(), scale, above)


def _unscaled(values: Tensor, scale_bytes: Tensor) -> Tensor:
    scales = scale_bytes.view(torch.float32).view(-1, 1)
    return (_blocks(values) * scales).view(-1)[: values.numel()]


# ---------------------------------------------------------------- int8, int4


def _quantised(values: Tensor, levels: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return steps int8 [n] and the bytes of the scales."""
    blocks = _blocks(values)
    most = _largest(blocks)
    scale = most * (HAIR / levels)
    if recipe.to_hidden:
        wide = torch.minimum(_rms(blocks), most * WIDE_MAX) if levels == INT4_LEVELS else scale
        scale = _power_of_two_above(torch.maximum(scale, wide))
        scaled = blocks * (1 / scale)
    else:
        scale = scale.clamp(min=float(MIN_SCALE))
        scaled = blocks * (1 / scale) + _noise(blocks, recipe)
    steps = scaled.round().nan_to_num(0).to(torch.int8)
    return steps.view(-1)[: values.numel()], scale.view(torch.uint8).view(-1)


def _rms(blocks: Tensor) -> Tensor:
    """Return the root mean square of each block [blocks, 1]."""
    return blocks.double().square().mean(dim=1, keepdim=True).sqrt().float()


def _noise(blocks: Tensor, recipe: Recipe) -> Tensor:
    """Return numbers in (-1/2, 1/2), [blocks, BLOCK]: odd ones over 2**16, symmetric around 0; an integer stays."""
    seed = int(np.random.SeedSequence((recipe.seed, recipe.start)).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(blocks.device).manual_seed(seed)
    odd = torch.randint(-(1 << 15), 1 << 15, blocks.shape, generator=generator, device=blocks.device) | 1
    return odd * 2.0**-16


def _encode_int8(values: Tensor, recipe: Recipe) -> list[Tensor]:
    steps, scales = _quantised(values, INT8_LEVELS, recipe)
    return [steps.view(torch.uint8), scales]


def _decode_int8(planes: Sequence[Tensor], _count: int) -> Tensor:
    codes, scales = planes
    return _unscaled(codes.view(torch.int8).float(), scales)


def _halves(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second halves of all blocks, one after the other; the last block's may be short."""
    border = steps.numel() // BLOCK * BLOCK
    whole, rest = steps[:border].view(-1, 2, _HALF), steps[border:]
    rest = torch.nn.functional.pad(rest, (0, rest.numel() % 2)).view(2, -1)
    return torch.cat([whole[:, 0].reshape(-1), rest[0]]), torch.cat([whole[:, 1].reshape(-1), rest[1]])


def _encode_int4(values: Tensor, recipe: Recipe) -> list[Tensor]:
    steps, scales = _quantised(values, INT4_LEVELS, recipe)
    low, high = _halves(steps.view(torch.uint8))
    return [(low & 15) | (high << 4), scales]


def _decode_int4(planes: Sequence[Tensor], count: int) -> Tensor:
    packed, scales = planes
    low, high = (packed << 4).view(torch.int8) >> 4, packed.view(torch.int8) >> 4
    border = count // BLOCK * _HALF
    whole = torch.stack([low[:border].view(-1, _HALF), high[:border].view(-1, _HALF)], 1).view(-1)
    rest = packed_bytes(count - count // BLOCK * BLOCK)
    steps = torch.cat([whole, low[border : border + rest], high[border : border + rest]])[:count]
    return _unscaled(steps.float(), scales)


# ---------------------------------------------------------------- topk


def _encode_topk(values: Tensor, recipe: Recipe) -> list[Tensor]:
    places = torch.topk(values.abs(), kept_count(values.numel(), recipe.ratio), sorted=False).indices
    places = places[values[places] != 0].sort().values
    gaps = torch.diff(places, prepend=places.new_full((1,), -1)) - 1
    place_planes = _bytes_of(gaps.to(torch.int32)).T[:PLACE_BYTES].contiguous()
    return [*place_planes, *_encode_int8(values[places], recipe)]


def _decode_topk(planes: Sequence[Tensor], count: int) -> Tensor:
    *place_planes, codes, scales = planes
    gaps = sum((plane.long() << (8 * k) for k, plane in enumerate(place_planes)), codes.new_zeros((), dtype=torch.long))
    places = torch.cumsum(gaps + 1, 0) - 1
    if places.numel() and int(places[-1]) >= count:
        raise DecodeError(f"the last place of a topk frame is {int(places[-1])}, the frame covers {count} elements")
    return torch.zeros(count, device=codes.device).scatter_(0, places, _decode_int8([codes, scales], places.numel()))


CODERS: dict[Code, TorchCoder] = {
    Code.FP32: TorchCoder(encode=_encode_fp32, decode=_decode_fp32),
    Code.FP16: TorchCoder(encode=_encode_fp16, decode=_decode_fp16),
    Code.BF16: TorchCoder(encode=_encode_bf16, decode=_decode_bf16),
    Code.INT8: TorchCoder(encode=_encode_int8, decode=_decode_int8),
    Code.INT4: TorchCoder(encode=_encode_int4, decode=_decode_int4),
    Code.TOPK: TorchCoder(encode=_encode_topk, decode=_decode_topk),
}
