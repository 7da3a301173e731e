"""What comes out of the codec: exactness, errors, bias, sizes, determinism."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbus.core.protocol.frames import Code, FrameHeader
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import DecodeError, LayoutError
from fedbus.tensors.blocks import BLOCK, TILE
from fedbus.tensors.codec import (
    decode_all_,
    decode_fold_,
    decode_fold_all_,
    decode_frame,
    decode_into_,
    encode,
    frame_count,
)
from fedbus.tensors.fold import Accumulator

MIB = 1 << 20


def layout_of_sizes(*sizes: int) -> Layout:
    return Layout.of([TensorSpec(name=f"t{i}", shape=(n,), dtype="float32") for i, n in enumerate(sizes)])


def normal(numel: int, seed: int = 0) -> Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(seed))


DENSE = [code for code in Code if code is not Code.TOPK]
LEVELS = {Code.INT8: 127, Code.INT4: 7}


def round_trip(flat: Tensor, layout: Layout, code: Code, *, seed: int = 0, to_hidden: bool = False) -> Tensor:
    out = torch.full_like(flat, math.nan)
    frames = encode(flat, layout, code, chunk_bytes=1 << 16, seed=seed, to_hidden=to_hidden)
    decode_all_(out, frames, layout)
    return out


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-40, 3.4028234e38, 1.0, -1.5]


def test_fp32_is_exact_for_every_kind_of_value() -> None:
    layout = layout_of_sizes(70_000)
    any_bits = torch.randint(-(2**31), 2**31, (70_000,), generator=torch.Generator().manual_seed(1)).to(torch.int32)
    flat = torch.cat([torch.tensor(SPECIAL), any_bits.view(torch.float32)[len(SPECIAL) :]])

    assert same_bits(round_trip(flat, layout, Code.FP32), flat)


@pytest.mark.parametrize("code", Code)
def test_small_tensors_are_exact_whatever_the_code(code: Code) -> None:
    layout = layout_of_sizes(5000, 1024, 3, 1)
    flat = normal(layout.numel)

    out = round_trip(flat, layout, code)

    assert layout.exact_numel == 1028
    assert same_bits(out[:1028], flat[:1028])
    assert (code is Code.FP32) == same_bits(out, flat)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
@pytest.mark.parametrize(("code", "bound"), [(Code.FP32, 0.0), (Code.FP16, 2.0**-11), (Code.BF16, 2.0**-8)])
def test_relative_error_of_the_float_codes(code: Code, bound: float, scale: float) -> None:
    layout = layout_of_sizes(70_001)
    flat = normal(70_001) * scale

    error = (round_trip(flat, layout, code).double() - flat.double()).abs()

    assert (error / flat.abs().double()).max().item() <= bound


def test_fp16_keeps_small_values_beside_large_ones() -> None:
    layout = layout_of_sizes(BLOCK)
    flat = torch.full((BLOCK,), 2.0**-20)
    flat[0] = 3.0

    assert torch.equal(round_trip(flat, layout, Code.FP16), flat)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e30])
@pytest.mark.parametrize("to_hidden", [False, True])
@pytest.mark.parametrize("code", LEVELS)
def test_int_codes_err_by_less_than_one_step_of_their_block(code: Code, to_hidden: bool, scale: float) -> None:
    numel = 20 * BLOCK + 77
    layout = layout_of_sizes(numel)
    flat = normal(numel) * torch.logspace(-3, 3, numel) * scale

    error = (round_trip(flat, layout, code, to_hidden=to_hidden).double() - flat.double()).abs()

    for block, off in zip(flat.double().split(BLOCK), error.split(BLOCK), strict=True):
        step = block.abs().max() / LEVELS[code]
        if to_hidden:  # then the step is the next power of two at most, and the error half of it
            step = torch.maximum(step, block.square().mean().sqrt()) if code is Code.INT4 else step
        assert off.max() <= step * (1 + 1e-6)


@pytest.mark.parametrize("code", LEVELS)
def test_int_codes_reach_but_never_pass_the_largest_value(code: Code) -> None:
    layout = layout_of_sizes(BLOCK)
    for seed in range(40):
        flat = normal(BLOCK, seed) * 10.0 ** (seed - 20)
        limit = flat.abs().max() * (1 + 2.0**-20)
        flat[:50], flat[50:100] = flat.abs().max(), -flat.abs().max()
        out = round_trip(flat, layout, code, seed=seed)
        assert out.abs().max() <= limit
        assert torch.equal(out[:100].sign(), flat[:100].sign())


@pytest.mark.parametrize("numel", [2 * BLOCK, 20 * BLOCK])
@pytest.mark.parametrize("code", LEVELS)
def test_int_rounding_is_unbiased(code: Code, numel: int) -> None:
    # given values all over a step, rounded 400 times with other seeds; over one tile of noise and over two
    layout = layout_of_sizes(numel)
    flat = normal(numel)
    flat[::BLOCK] = LEVELS[code]
    step = 1 + 2.0**-22
    share_up = (flat / step).remainder(1).double()
    times = 400

    mean = torch.stack([round_trip(flat, layout, code, seed=s) for s in range(times)]).double().mean(0)

    # then the errors of the means are standard normal
    inside = (share_up > 0.1) & (share_up < 0.9)
    z = ((mean - flat.double()) / (share_up * (1 - share_up) / times).sqrt())[inside]
    assert z.numel() > numel / 2
    assert abs(z.mean().item()) < 4 / math.sqrt(z.numel())
    assert abs(z.var().item() - 1) < 4 * math.sqrt(2 / z.numel())


@pytest.mark.parametrize("to_hidden", [False, True])
@pytest.mark.parametrize("code", LEVELS)
def test_int_codes_keep_zeros_and_zero_blocks(code: Code, to_hidden: bool) -> None:
    layout = layout_of_sizes(3 * BLOCK)
    flat = normal(3 * BLOCK)
    flat[::2] = 0.0
    flat[BLOCK : 2 * BLOCK] = 0.0

    out = round_trip(flat, layout, code, to_hidden=to_hidden)

    assert torch.equal(out[flat == 0], flat[flat == 0])


def test_int8_never_moves_a_value_that_lies_on_a_step() -> None:
    # given odd multiples of the step, which a tie would round away to an even one; every 65,000th draw is near one
    layout = layout_of_sizes(1 << 20)
    flat = torch.full((1 << 20,), 65.0)
    flat[1::2] = -67.0

    assert torch.equal(round_trip(flat, layout, Code.INT8, to_hidden=True), flat)


GAPS = {
    "normal": normal(3 * BLOCK),
    "one value everywhere": torch.full((3 * BLOCK,), 0.3),
    "one large value": torch.full((3 * BLOCK,), 1e-3).index_fill(0, torch.tensor([5]), 1.0),
    "a few of a thousand": normal(3 * BLOCK) * (torch.arange(3 * BLOCK) % 1000 == 0),
    "of all sizes": normal(3 * BLOCK) * torch.logspace(-6, 0, 3 * BLOCK),
}


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("code", LEVELS)
def test_what_does_not_move_any_more_arrives_at_the_hidden_params(code: Code, gap: str) -> None:
    left = GAPS[gap]
    layout, last = layout_of_sizes(left.numel()), math.inf
    for _ in range(40):
        left = left - round_trip(left, layout, code, to_hidden=True)
        assert (left.norm() < last) or not left.any()
        last = left.norm().item()
    assert last < 1e-6 * GAPS[gap].norm()


def test_an_int4_version_is_two_thirds_of_an_int4_update() -> None:
    layout, flat = layout_of_sizes(1 << 18), normal(1 << 18)
    update, version = (
        sum(map(len, encode(flat, layout, Code.INT4, seed=0, to_hidden=to_hidden))) for to_hidden in (False, True)
    )
    assert version < 0.67 * update


@pytest.mark.parametrize("code", [Code.INT8, Code.INT4, Code.TOPK])
def test_scales_to_hidden_are_powers_of_two(code: Code) -> None:
    layout = layout_of_sizes(BLOCK)

    out = round_trip(normal(BLOCK).clamp(-1, 1), layout, code, to_hidden=True)

    # a step is the largest value over 127 or 7, so every value is a whole number of the power of two below it
    step = 2.0 ** math.floor(math.log2(out.abs().max().item() / LEVELS.get(code, 127)))
    assert (out / step).frac().eq(0).all()


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_not_finite_stays_visible(code: Code, value: float) -> None:
    layout = layout_of_sizes(3 * BLOCK)
    flat = normal(3 * BLOCK)
    flat[BLOCK + 5] = value

    out = round_trip(flat, layout, code)

    assert not out[BLOCK + 5].isfinite()
    if code is not Code.TOPK:  # which has the values of a whole frame in one block
        assert out[:BLOCK].isfinite().all()
        assert out[2 * BLOCK :].isfinite().all()


@pytest.mark.parametrize("code", Code)
def test_frames_come_in_order_cover_everything_once_and_fit_a_chunk(code: Code) -> None:
    layout = layout_of_sizes(200_000, 900, 800, 3000)
    chunk_bytes = 1 << 16

    frames = list(encode(normal(layout.numel), layout, code, chunk_bytes=chunk_bytes, seed=0))

    headers = [FrameHeader.parse(frame) for frame in frames]
    starts = [0, *(header.stop for header in headers)]
    assert [header.start for header in headers] == starts[:-1]
    assert starts[-1] == layout.numel
    assert layout.exact_numel in starts
    assert all(len(frame) <= chunk_bytes * 1.002 + 64 for frame in frames)
    if code is not Code.TOPK:  # whose frames would be full if everything were kept
        assert len(frames) <= 1 + math.ceil(sum(map(len, frames)) / chunk_bytes / 0.3)


@pytest.mark.parametrize("code", Code)
def test_a_mantissa_is_stored_raw_and_the_rest_is_compressed(code: Code) -> None:
    layout = layout_of_sizes(1 << 18)
    widths = {Code.FP32: 4, Code.FP16: 2, Code.BF16: 2, Code.INT8: 1, Code.INT4: 0.5, Code.TOPK: 0.04}

    noisy = sum(map(len, encode(normal(1 << 18), layout, code, seed=0)))

    assert 0.45 < noisy / (widths[code] * (1 << 18)) < 0.98


@pytest.mark.parametrize("code", Code)
def test_what_did_not_change_costs_next_to_nothing(code: Code) -> None:
    # given a model of 4 MiB, and the same beside a frozen one of 12 MiB
    changed, frozen = normal(1 << 20), torch.zeros(3 << 20)

    def size(flat: Tensor) -> int:
        return sum(map(len, encode(flat, layout_of_sizes(flat.numel()), code, seed=0)))

    # then nothing costs less than 1/4000 of fp32, and the frozen part adds no more than that
    assert size(frozen) < 4 * frozen.numel() / 4000
    if code is not Code.TOPK:  # of which a frame more is a frame more
        assert size(torch.cat([changed, frozen])) < size(changed) + 4 * frozen.numel() / 4000


def test_encoding_is_deterministic_and_only_stochastic_rounding_depends_on_the_seed() -> None:
    layout = layout_of_sizes(50_000)
    flat = normal(50_000)
    for code in Code:
        first, again, other = (list(encode(flat, layout, code, seed=seed)) for seed in (1, 1, 2))
        assert first == again
        assert (first == other) == (code in (Code.FP32, Code.FP16, Code.BF16))
        one, another = (list(encode(flat, layout, code, seed=seed, to_hidden=True)) for seed in (1, 2))
        assert one == another


@pytest.mark.parametrize("repeated", [BLOCK, TILE])
def test_equal_frames_and_equal_tiles_of_one_vector_are_rounded_differently(repeated: int) -> None:
    layout = layout_of_sizes(2 * repeated)
    flat = normal(repeated).repeat(2)

    out = torch.empty_like(flat)
    decode_all_(out, encode(flat, layout, Code.INT8, chunk_bytes=BLOCK if repeated == BLOCK else MIB, seed=0), layout)

    errors = (out - flat).view(2, -1)
    assert not torch.equal(errors[0], errors[1])
    assert abs(torch.corrcoef(errors)[0, 1].item()) < 5 / math.sqrt(repeated)


def test_encode_does_not_touch_its_input() -> None:
    layout = layout_of_sizes(BLOCK + 5)
    flat = normal(BLOCK + 5)
    before = flat.clone()
    for code in Code:
        list(encode(flat, layout, code, seed=0))
    assert same_bits(flat, before)


@pytest.mark.parametrize("code", Code)
def test_decode_fold_adds_what_decode_into_writes(code: Code) -> None:
    layout = layout_of_sizes(9000)
    base = normal(9000, seed=5)
    frames = list(encode(normal(9000), layout, code, chunk_bytes=1 << 14, seed=0))
    decoded, added = torch.empty(9000), base.clone()

    for frame in frames:
        assert decode_into_(decoded, frame, layout) == decode_fold_(added, memoryview(frame), layout, 1.0)
        header, values = decode_frame(frame, layout)
        assert same_bits(values, decoded[header.start : header.stop])

    assert same_bits(added, base + decoded)


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.1234567, 3e-5])
def test_decoding_into_a_sum_gives_the_bits_of_decoding_and_folding(code: Code, factor: float) -> None:
    layout = layout_of_sizes(80_001, 700)
    frames = list(encode(normal(layout.numel), layout, code, chunk_bytes=1 << 16, seed=0))
    decoded, fused = torch.empty(layout.numel), torch.zeros(layout.numel)
    decode_all_(decoded, frames, layout)
    accumulator = Accumulator(layout.numel)

    for _ in range(3):
        accumulator.fold_(decoded, factor)
        decode_fold_all_(fused, frames, layout, factor)

    assert same_bits(fused, accumulator.mean(1.0))


@settings(max_examples=40)
@given(
    sizes=st.lists(st.sampled_from([1, 7, 1024, 1025, 4095, 4096, 4097, 9001, 70_000]), min_size=1, max_size=4),
    code=st.sampled_from(DENSE),
    chunk_bytes=st.sampled_from([1, 1 << 14, 100_000]),
    to_hidden=st.booleans(),
)
def test_any_layout_and_chunk_size_survives(sizes: list[int], code: Code, chunk_bytes: int, to_hidden: bool) -> None:
    layout = layout_of_sizes(*sizes)
    flat = normal(layout.numel)
    out = torch.full_like(flat, math.nan)

    frames = encode(flat, layout, code, chunk_bytes=chunk_bytes, seed=3, to_hidden=to_hidden)
    decode_all_(out, frames, layout)

    tolerance = {Code.FP32: 0.0, Code.FP16: 2.0**-11, Code.BF16: 2.0**-8, Code.INT8: 2 / 127, Code.INT4: 2 / 7}[code]
    assert (out - flat).abs().max() <= flat.abs().max() * tolerance * (1 + 1e-6)


@pytest.mark.parametrize(
    "flat",
    [torch.zeros(99), torch.zeros(100, dtype=torch.float64), torch.zeros(200)[::2], torch.zeros(10, 10)],
)
def test_a_vector_that_does_not_fit_the_layout_is_a_layout_error(flat: Tensor) -> None:
    layout = layout_of_sizes(100)
    with pytest.raises(LayoutError, match="expected a contiguous float32 vector of 100 elements, found"):
        list(encode(flat, layout, Code.FP32, seed=0))
    (frame,) = encode(torch.zeros(100), layout, Code.FP32, seed=0)
    with pytest.raises(LayoutError):
        decode_into_(flat, frame, layout)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([], "cover 0 of 9100"),
        ([0, 1], "cover 4196 of 9100"),
        ([1, 2, 3], "must start at element 0, this one starts at 100"),
        ([0, 2, 3], "must start at element 100, this one starts at 4196"),
        ([0, 1, 1, 2, 3], "must start at element 4196, this one starts at 100"),
        ([0, 1, 2, 3, 3], "must start at element 9100"),
    ],
)
def test_missing_doubled_or_disordered_frames_are_refused(keep: list[int], message: str) -> None:
    layout = layout_of_sizes(9000, 100)
    frames = list(encode(normal(9100), layout, Code.FP32, chunk_bytes=1 << 14, seed=0))

    with pytest.raises(DecodeError, match=message):
        decode_all_(torch.empty(9100), [frames[i] for i in keep], layout)


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 14, 1 << 16, 1 << 20])
@pytest.mark.parametrize("sizes", [(1,), (1024, 3), (5000, 1024, 3), (70_001,), (16 * BLOCK, 16 * BLOCK)])
def test_the_number_of_frames_is_known_before_they_are_made(
    sizes: tuple[int, ...], chunk_bytes: int, code: Code
) -> None:
    layout = layout_of_sizes(*sizes)
    frames = list(encode(normal(layout.numel), layout, code, chunk_bytes=chunk_bytes, seed=0))
    assert frame_count(layout, code, chunk_bytes=chunk_bytes) == len(frames)
