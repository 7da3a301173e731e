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

from fedbus.core.frames import HEADER_BYTES, MAX_COUNT, Code, FrameHeader, build_frame
from fedbus.core.layout import Layout, TensorSpec
from fedbus.errors import DecodeError
from fedbus.tensors.codec import decode_add_, decode_into_, encode
from fedbus.tensors.blocks import BLOCK, Recipe, Workspace
from fedbus.tensors.codes import CODERS

VALUES = [1.0, -2.0, 0.15625, 0.0, 3.3, -1e-3]


def layout_of_sizes(*sizes: int) -> Layout:
    return Layout.of([TensorSpec(name=f"t{i}", shape=(n,), dtype="float32") for i, n in enumerate(sizes)])


PLANES = {
    Code.FP32: ["000000000000000033336f12", "800020005383", "3fc03e0040ba"],
    Code.FP16: ["000000009a19", "70f4650076c8", "00000039"],
    Code.BF16: ["800020005383", "3fc03e0040ba"],
    Code.INT8: ["27b306007f00", "f0dcd43c"],
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
                decode_add_(out, frame, LAYOUT)
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


@settings(max_examples=150, deadline=None)
@given(good_frames, st.data())
def test_truncation_is_a_decode_error(frame: bytes, data: st.DataObject) -> None:
    cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
    assert not decodes(cut)
    if len(cut) >= HEADER_BYTES:
        shorter = struct.pack("<I", len(cut) - HEADER_BYTES)
        assert not decodes(signed(cut[:16] + shorter + cut[20:]))


@settings(max_examples=300, deadline=None)
@given(good_frames, st.data())
def test_mutated_and_signed_again_only_a_decode_error_is_raised(frame: bytes, data: st.DataObject) -> None:
    forged = bytearray(frame)
    near_the_front = st.integers(0, min(len(frame), 80) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(near_the_front | st.integers(0, len(frame) - 1))
        forged[at] = data.draw(st.integers(0, 255))
    decodes(signed(bytes(forged)))


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=100, deadline=None)
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


def test_forged_scales_give_values_for_the_guard_and_no_warning() -> None:
    scales = struct.pack("<2f", float("inf"), float("nan"))
    planes = [bytes(range(256)) * 19 + bytes(136), scales]
    assert decodes(build_frame(Code.INT8, 100, 5000, [table(planes), *planes]))
