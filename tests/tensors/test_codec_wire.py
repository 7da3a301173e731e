"""The bytes of the codec: pinned for ever, and garbage that may arrive instead."""

from __future__ import annotations

import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbus.core.protocol.frames import HEADER_BYTES, MAX_COUNT, Code, FrameHeader, build_frame
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import DecodeError
from fedbus.tensors.blocks import BLOCK, Recipe, Workspace
from fedbus.tensors.codec import decode_fold_, decode_into_, encode
from fedbus.tensors.codes import CODERS

VALUES = [1.0, -2.0, 0.15625, 0.0, 3.3, -1e-3]


def layout_of_sizes(*sizes: int) -> Layout:
    return Layout.of([TensorSpec(name=f"t{i}", shape=(n,), dtype="float32") for i, n in enumerate(sizes)])


PLANES = {
    Code.FP32: ["000000000000000033336f12", "800020005383", "3fc03e0040ba"],
    Code.FP16: ["000000009a19", "70f4650076c8", "00000039"],
    Code.BF16: ["800020005383", "3fc03e0040ba"],
    Code.INT8: ["26b306007f00", "f0dcd43c"],
    Code.INT4: ["027c00", "1a5ff13e"],
    Code.TOPK: ["000002", "000000", "000000", "26b37f", "f0dcd43c"],
}


@pytest.mark.parametrize("code", Code)
def test_the_planes_of_each_code_are_pinned(code: Code) -> None:
    coder = CODERS[code]

    planes = coder.encode(np.array(VALUES, np.float32), Recipe(seed=7, ratio=0.5), Workspace())

    assert [plane.tobytes().hex() for plane in planes] == PLANES[code]
    assert tuple(plane.size for plane in planes) == coder.plane_bytes(len(VALUES), 3)


def test_a_whole_frame_is_pinned() -> None:
    (frame,) = encode(torch.tensor([1.0, -2.0]), layout_of_sizes(2), Code.INT8, seed=0)

    header = "464201000000000000000000" + "02000000" + "14000000" + "791c3819"
    table = "04000000" + "02000000" + "02000000"
    assert frame.hex() == header + table + "00000000" + "8000" + "3fc0"


ZSTD_FRAME = (
    "464201030000000000000000000800001f000000f4c67268130000000400000028b52ffd6000074d00001060600100fbff000b0000003c"
)


def test_a_frame_with_zstd_planes_is_read_for_ever() -> None:
    layout = layout_of_sizes(2048)
    out = torch.empty(2048)

    decode_into_(out, bytes.fromhex(ZSTD_FRAME), layout)

    assert torch.equal(out, torch.full((2048,), 0.75))


INT4_FRAME = (
    "464201040000000000000000000800001f000000ac6976c1130000000400000028b52ffd6000034d00001066000100fbab1c160000003e"
)
TOPK_FRAME = (
    "464201050000000000000000000800002c000000b4f3c940"
    "04000000"
    + "0400000004000000040000000400000004000000"
    + "03b80041"
    + "00020005"
    + "00000000"
    + "01ff4001"
    + "00000040"
)


def test_frames_of_int4_and_topk_are_read_for_ever() -> None:
    layout = layout_of_sizes(2048)
    int4, topk = torch.empty(2048), torch.empty(2048)

    decode_into_(int4, bytes.fromhex(INT4_FRAME), layout)
    decode_into_(topk, bytes.fromhex(TOPK_FRAME), layout)

    assert torch.equal(int4, torch.tensor([0.75, 0.0]).repeat(1024))
    kept = {3: 2.0, 700: -2.0, 701: 128.0, 2047: 2.0}
    assert {i: topk[i].item() for i in topk.nonzero().flatten().tolist()} == kept


# ------------------------------------------------------------------ what may arrive instead

LAYOUT = layout_of_sizes(5000, 100)


def good_frame(code: Code, *, exact: bool) -> bytes:
    flat = torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(0))
    return list(encode(flat, LAYOUT, code, seed=0))[0 if exact else 1]


GOOD = {(code, exact): good_frame(code, exact=exact) for code in Code for exact in (True, False)}


def decodes(frame: bytes) -> bool:
    """Whether the frame is accepted; anything but DecodeError, warnings too, fails the test."""
    out = torch.zeros(LAYOUT.numel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            decode_into_(out, frame, LAYOUT)
        except DecodeError:
            assert not out.any(), "a refused frame must leave the vector alone"
            with pytest.raises(DecodeError):
                decode_fold_(out, frame, LAYOUT, 1.0)
            return False
    return True


def signed(frame: bytes) -> bytes:
    """The same frame with the checksum its bytes need, as a forger would send it."""
    try:
        header = FrameHeader.parse(frame)
    except DecodeError:
        return frame
    return build_frame(header.code, header.start, header.count, [frame[HEADER_BYTES:]])


good_frames = st.sampled_from(sorted(GOOD)).map(lambda key: GOOD[key])


@settings(max_examples=150)
@given(good_frames, st.data())
def test_truncation_is_a_decode_error(frame: bytes, data: st.DataObject) -> None:
    cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
    assert not decodes(cut)
    if len(cut) >= HEADER_BYTES:
        shorter = struct.pack("<I", len(cut) - HEADER_BYTES)
        assert not decodes(signed(cut[:16] + shorter + cut[20:]))


@settings(max_examples=300)
@given(good_frames, st.data())
def test_mutated_and_signed_again_only_a_decode_error_is_raised(frame: bytes, data: st.DataObject) -> None:
    forged = bytearray(frame)
    near_the_front = st.integers(0, min(len(frame), 80) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(near_the_front | st.integers(0, len(frame) - 1))
        forged[at] = data.draw(st.integers(0, 255))
    decodes(signed(bytes(forged)))


@settings(max_examples=150)
@given(
    code=st.sampled_from(Code),
    start=st.integers(0, 5200),
    count=st.integers(1, 5200),
    payload=st.binary(max_size=300) | st.integers(0, 30_000).map(bytes),
)
def test_garbage_behind_a_valid_header_only_raises_a_decode_error(
    code: Code, start: int, count: int, payload: bytes
) -> None:
    decodes(build_frame(code, start, count, [payload]))


@settings(max_examples=100)
@given(plane=st.binary(max_size=200), code=st.sampled_from(Code))
def test_garbage_planes_behind_a_valid_table_only_raise_a_decode_error(plane: bytes, code: Code) -> None:
    planes = [b"\x28\xb5\x2f\xfd" + plane, *(bytes(size) for size in CODERS[code].plane_bytes(BLOCK, 40)[1:])]
    kept = [struct.pack("<I", 40)] if code is Code.TOPK else []
    assert not decodes(build_frame(code, 100, BLOCK, [*kept, table(planes), *planes]))


def table(planes: list[bytes]) -> bytes:
    return struct.pack(f"<{len(planes)}I", *map(len, planes))


def squeezed(size: int, *, announce: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=announce).compress(bytes(size))


def lying(size: int, announced: int) -> bytes:
    """A zstd frame of `size` zeros whose header announces another size."""
    frame = zstandard.ZstdCompressor(level=1).compress(bytes(size))
    assert struct.unpack_from("<I", frame, 6) == (size,)
    return frame[:6] + struct.pack("<I", announced) + frame[10:]


WIDE_WINDOW = b"\x28\xb5\x2f\xfd" + b"\x80" + b"\xff" + struct.pack("<I", BLOCK) + b"\x01\x00\x00"


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(squeezed(1 << 26), id="expands to 64 MiB and says so"),
        pytest.param(squeezed(1 << 26, announce=False), id="expands to 64 MiB and does not say so"),
        pytest.param(lying(1 << 26, BLOCK), id="announces 4 KiB, expands to 64 MiB"),
        pytest.param(lying(1 << 22, 1 << 31), id="announces 2 GiB"),
        pytest.param(WIDE_WINDOW, id="asks for a window of terabytes"),
        pytest.param(squeezed(BLOCK - 1), id="one byte short"),
        pytest.param(squeezed(BLOCK) + squeezed(BLOCK), id="two zstd frames"),
        pytest.param(b"\x50\x2a\x4d\x18\xff\xff\xff\x7f", id="skippable zstd frame of 2 GiB"),
        pytest.param(b"", id="empty plane"),
    ],
)
def test_a_bomb_is_refused_in_bounded_memory(bomb: bytes) -> None:
    planes = [bomb, bytes(4)]
    frame = build_frame(Code.INT8, 100, BLOCK, [table(planes), *planes])
    tracemalloc.start()
    try:
        assert not decodes(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_largest_count_allocates_nothing_before_the_planes_are_there() -> None:
    huge = layout_of_sizes(MAX_COUNT)
    out = torch.empty(MAX_COUNT)
    frame = build_frame(Code.INT8, 0, MAX_COUNT, [table([b"x", b"y"]), b"xy"])
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_into_(out, frame, huge)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("code", "start", "count", "message"),
    [
        (Code.FP32, 0, 101, "elements 0 to 100 come as fp32 in frames of their own, found fp32 from 0 to 101"),
        (Code.FP32, 99, 5001, "found fp32 from 99 to 5100"),
        (Code.FP16, 0, 100, "found fp16 from 0 to 100"),
        (Code.INT8, 50, 10, "found int8 from 50 to 60"),
        (Code.FP32, 100, 5001, "the model has 5100"),
    ],
)
def test_frames_that_do_not_fit_the_sections_are_refused(code: Code, start: int, count: int, message: str) -> None:
    planes = [bytes(size) for size in CODERS[code].plane_bytes(count, count)]

    with pytest.raises(DecodeError, match=message):
        decode_into_(torch.empty(5100), build_frame(code, start, count, [table(planes), *planes]), LAYOUT)


def topk_frame(*, kept: int, gaps: list[int], count: int = 5000) -> bytes:
    """A frame of ones as a forger would make it: `gaps` as they stand, whatever number of elements it says it keeps."""
    places = np.array(gaps, np.uint32).view(np.uint8).reshape(-1, 4)[:, :3].T
    scales = np.ones(-(-len(gaps) // BLOCK), np.float32)
    planes = [*(plane.tobytes() for plane in places), bytes([1] * len(gaps)), scales.tobytes()]
    return build_frame(Code.TOPK, 100, count, [struct.pack("<I", kept), table(planes), *planes])


def test_places_may_fill_the_whole_frame() -> None:
    out = torch.zeros(LAYOUT.numel)
    decode_into_(out, topk_frame(kept=5000, gaps=[0] * 5000), LAYOUT)
    decode_into_(out[:], topk_frame(kept=1, gaps=[4999]), LAYOUT)
    assert out.nonzero().flatten().tolist() == [5099]


@pytest.mark.parametrize(
    ("kept", "gaps", "message"),
    [
        (2, [0, 4999], "last place of a topk frame is 5000, the frame covers 5000"),
        (1, [2**24 - 1], "last place of a topk frame is 16777215"),
        (300, [2**24 - 1] * 300, "last place of a topk frame is 5033164799"),
        (5001, [0] * 5001, "says that it keeps 5001 of 5000"),
        (2**32 - 1, [0], "says that it keeps 4294967295 of 5000"),
        (3, [0, 0], "no valid zstd frame"),
        (1, [0, 0], "a plane of 1 bytes is stored in 2"),
    ],
)
def test_topk_frames_that_keep_what_does_not_exist_are_refused(kept: int, gaps: list[int], message: str) -> None:
    frame = topk_frame(kept=kept, gaps=gaps)
    with pytest.raises(DecodeError, match=message):
        decode_into_(torch.empty(LAYOUT.numel), frame, LAYOUT)
    assert not decodes(frame)


def test_a_topk_frame_is_refused_before_anything_is_made_of_what_it_announces() -> None:
    layout = layout_of_sizes(MAX_COUNT)
    bomb = squeezed(MAX_COUNT)
    planes = [bomb, bomb, bomb, bomb, squeezed(MAX_COUNT // 1024)]
    too_long = build_frame(Code.TOPK, 0, MAX_COUNT, [struct.pack("<I", MAX_COUNT), table(planes), *planes])
    too_many = build_frame(Code.TOPK, 0, 1 << 20, [struct.pack("<I", MAX_COUNT), table(planes), *planes])
    out = torch.empty(MAX_COUNT)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="covers at most 2097152 elements"):
            decode_into_(out, too_long, layout)
        with pytest.raises(DecodeError, match="keeps 16777216 of 1048576"):
            decode_into_(out, too_many, layout)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@settings(max_examples=200)
@given(
    kept=st.integers(0, 300),
    places=st.binary(max_size=900),
    values=st.binary(max_size=300),
    scales=st.binary(max_size=8),
)
def test_garbage_in_the_planes_of_topk_only_raises_a_decode_error(
    kept: int, places: bytes, values: bytes, scales: bytes
) -> None:
    planes = [places[::3], places[1::3], places[2::3], values, scales]
    decodes(build_frame(Code.TOPK, 100, 5000, [struct.pack("<I", kept), table(planes), *planes]))


def test_forged_scales_give_values_for_the_guard_and_no_warning() -> None:
    scales = struct.pack("<2f", float("inf"), float("nan"))
    planes = [bytes(range(256)) * 19 + bytes(136), scales]
    assert decodes(build_frame(Code.INT8, 100, 5000, [table(planes), *planes]))
