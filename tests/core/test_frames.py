from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol.frames import (
    CODE_NUMBERS,
    HEADER_BYTES,
    Code,
    FrameHeader,
    build_frame,
    check_frame,
)
from fedbus.errors import DecodeError

GOLDEN = [
    # magic, schema, code, start, count, payload length, crc32, payload
    (Code.FP32, 0, 1, b"", "4642 01 00 0000000000000000 01000000 00000000 e8fa4aa4"),
    (Code.FP16, 1, 2, b"ab", "4642 01 01 0100000000000000 02000000 02000000 70a203cb 6162"),
    (Code.BF16, 0x0102030405, 0x01000000, b"\x00", "4642 01 02 0504030201000000 00000001 01000000 b29dfe95 00"),
    (Code.INT8, 7, 4096, b"\xff" * 3, "4642 01 03 0700000000000000 00100000 03000000 315d0b12 ffffff"),
]


@pytest.mark.parametrize(("code", "start", "count", "payload", "golden"), GOLDEN)
def test_frame_bytes_are_pinned(code: Code, start: int, count: int, payload: bytes, golden: str) -> None:
    frame = build_frame(code, start, count, [payload])

    assert frame.hex() == golden.replace(" ", "")
    assert FrameHeader.parse(frame) == FrameHeader(
        code=code, start=start, count=count, payload_bytes=len(payload), crc=int.from_bytes(frame[20:24], "little")
    )


def test_every_code_has_its_number_for_ever() -> None:
    numbers = {str(code): number for code, number in CODE_NUMBERS.items()}
    assert numbers == {"fp32": 0, "fp16": 1, "bf16": 2, "int8": 3, "int4": 4, "topk": 5}


def test_payload_parts_are_joined_and_a_memoryview_is_as_good_as_bytes() -> None:
    frame = build_frame(Code.FP32, 0, 4, [b"ab", memoryview(b"cd")])

    assert frame == build_frame(Code.FP32, 0, 4, [b"abcd"])
    assert check_frame(memoryview(frame), 4) == check_frame(frame, 4)


def patched(at: int, value: bytes) -> bytes:
    frame = build_frame(Code.INT8, 5, 10, [b"payload"])
    return frame[:at] + value + frame[at + len(value) :]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "at least 24 bytes, this one 0"),
        (patched(0, b"")[:23], "this one 23"),
        (patched(0, b"XB"), "this one with b'XB'"),
        (patched(2, b"\x02"), "schema 2 is unknown"),
        (patched(3, b"\x09"), "code 9 is unknown"),
        (patched(12, b"\x00\x00\x00\x00"), "this one 0"),
        (patched(12, b"\x01\x00\x00\x01"), "this one 16777217"),
        (patched(16, b"\x08"), "announces 8 bytes, 7 follow"),
        (patched(0, b"") + b"x", "announces 7 bytes, 8 follow"),
        (patched(0, b"")[:-1], "announces 7 bytes, 6 follow"),
    ],
)
def test_a_malformed_header_is_refused(frame: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        FrameHeader.parse(frame)


def test_a_frame_beyond_the_model_is_refused() -> None:
    frame = build_frame(Code.INT8, 5, 10, [b"payload"])

    assert check_frame(frame, 15).stop == 15
    with pytest.raises(DecodeError, match="covers elements 5 to 15, the model has 14"):
        check_frame(frame, 14)


def test_start_near_the_end_of_u64_does_not_wrap() -> None:
    with pytest.raises(DecodeError, match="the model has 100"):
        check_frame(build_frame(Code.FP32, 2**64 - 1, 2, [b"x"]), 100)


@given(bit=st.integers(0, 8 * (HEADER_BYTES + 40) - 1))
def test_any_flipped_bit_is_found(bit: int) -> None:
    frame = bytearray(build_frame(Code.FP16, 3, 20, [bytes(range(40))]))
    frame[bit // 8] ^= 1 << bit % 8

    with pytest.raises(DecodeError):
        check_frame(bytes(frame), 1 << 40)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"FB\x01" + tail))
def test_garbage_is_a_decode_error(garbage: bytes) -> None:
    with pytest.raises(DecodeError):
        check_frame(garbage, 1 << 30)
