"""The codes on other devices: the same torch operations, run on the CPU, against the codes made for the CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import DecodeError
from fedbus.tensors import codes, codes_torch
from fedbus.tensors.blocks import BLOCK, U8, Recipe, Workspace, tiles
from fedbus.tensors.codec import decode_all_, decode_fold_all_, encode
from fedbus.tensors.digest import digest

SIZES = [1, 2047, 4096, 4097, 9001, 70_001]
CPU = torch.device("cpu")


def normal(numel: int, seed: int = 0) -> Tensor:
    scale = torch.logspace(-3, 3, numel)
    return torch.randn(numel, generator=torch.Generator().manual_seed(seed)) * scale


def decoded(code: Code, planes: list[U8], count: int) -> Tensor:
    """What the codes for the CPU make of the planes."""
    out = np.empty(count, np.float32)
    decode_ = codes.CODERS[code].decoder(planes, count)
    for tile in tiles(count):
        decode_(tile.start, out[tile])
    return torch.from_numpy(out)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("to_hidden", [False, True])
def test_planes_of_either_side_decode_to_the_same_bits_on_both(code: Code, count: int, to_hidden: bool) -> None:
    flat, recipe = normal(count), Recipe(seed=3, to_hidden=to_hidden, ratio=0.1)

    ours = codes.CODERS[code].encode(flat.numpy(), recipe, Workspace())
    theirs = codes_torch.to_host(codes_torch.CODERS[code].encode(flat, recipe))

    assert [plane.size for plane in theirs] == [plane.size for plane in ours]
    for planes in (ours, theirs):
        assert same_bits(codes_torch.decode(code, planes, count, CPU), decoded(code, planes, count))


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.TOPK])
def test_codes_without_noise_make_the_same_planes(code: Code) -> None:
    flat, recipe = normal(70_001), Recipe(to_hidden=True)
    ours = codes.CODERS[code].encode(flat.numpy(), recipe, Workspace())
    theirs = codes_torch.to_host(codes_torch.CODERS[code].encode(flat, recipe))
    assert [plane.tobytes() for plane in theirs] == [plane.tobytes() for plane in ours]


@pytest.mark.parametrize(("code", "levels"), [(Code.INT8, 127), (Code.INT4, 7)])
def test_rounding_is_unbiased_and_within_a_step(code: Code, levels: int) -> None:
    # given values all over a step, rounded 400 times
    flat = torch.randn(2 * BLOCK, generator=torch.Generator().manual_seed(1))
    flat[::BLOCK] = levels
    share_up = (flat / (1 + 2.0**-22)).remainder(1).double()
    times = 400

    rounded = torch.stack(
        [
            decoded(code, codes_torch.to_host(codes_torch.CODERS[code].encode(flat, Recipe(seed=s))), flat.numel())
            for s in range(times)
        ]
    ).double()

    assert (rounded - flat).abs().max() <= 1 + 1e-6
    inside = (share_up > 0.1) & (share_up < 0.9)
    z = ((rounded.mean(0) - flat) / (share_up * (1 - share_up) / times).sqrt())[inside]
    assert abs(z.mean().item()) < 4 / math.sqrt(z.numel())
    assert abs(z.var().item() - 1) < 4 * math.sqrt(2 / z.numel())


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_not_finite_stays_visible(code: Code, value: float) -> None:
    flat = normal(3 * BLOCK)
    flat[BLOCK + 5] = value
    planes = codes_torch.to_host(codes_torch.CODERS[code].encode(flat, Recipe()))
    assert not codes_torch.decode(code, planes, flat.numel(), CPU)[BLOCK + 5].isfinite()


def test_topk_keeps_the_largest_on_either_side() -> None:
    flat = normal(70_001)
    ours = decoded(Code.TOPK, codes.CODERS[Code.TOPK].encode(flat.numpy(), Recipe(), Workspace()), 70_001)
    planes = codes_torch.to_host(codes_torch.CODERS[Code.TOPK].encode(flat, Recipe()))
    assert planes[0].size == math.ceil(0.01 * 70_001)
    threshold = flat.abs().sort(descending=True).values[planes[0].size - 1]
    for out in (ours, decoded(Code.TOPK, planes, 70_001)):
        assert set(out.nonzero().flatten().tolist()) <= set((flat.abs() >= threshold).nonzero().flatten().tolist())


def test_a_place_outside_the_frame_is_a_decode_error() -> None:
    planes = codes.CODERS[Code.TOPK].encode(torch.ones(4000).numpy(), Recipe(ratio=1.0), Workspace())
    with pytest.raises(DecodeError, match="last place of a topk frame is 3999, the frame covers 3000"):
        codes_torch.decode(Code.TOPK, planes, 3000, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("code", Code)
def test_a_cuda_device_decodes_to_the_bits_of_the_cpu(code: Code) -> None:
    layout = Layout.of([TensorSpec(name=str(n), shape=(n,), dtype="float32") for n in (1000, 300_001)])
    flat = normal(layout.numel).cuda()
    for source in (flat, flat.cpu()):
        frames = list(encode(source, layout, code, seed=1, to_hidden=True))
        there, here = torch.zeros(layout.numel, device="cuda"), torch.zeros(layout.numel)
        for out in (there, here):
            decode_all_(out, frames, layout)
            decode_fold_all_(out, frames, layout, 0.37)
            decode_all_(out, frames, layout, add=True)
        assert same_bits(there.cpu(), here)
        assert digest(there) == digest(here)
