"""A frame: the body of one AMQP message, carrying coded elements [start, start + count) of the flat vector.

What lives here: the frame's header, built, parsed and checked without torch, so that daemons that only move bytes can
refuse a damaged frame. What may not: the meaning of the payload (see `fedbus.tensors.codec`).

    offset  size  field         little-endian
    0       2     magic         b"FB"
    2       1     schema        1
    3       1     code          0 fp32, 1 fp16, 2 bf16, 3 int8, 4 int4, 5 topk
    4       8     start         first element of the flat vector that is covered
    12      4     count         elements covered, 1 to 16 Mi
    16      4     payload_len   bytes after the header
    20      4     crc32         of bytes 0..19 and the payload
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedbus.errors import DecodeError


class Code(StrEnum):
    """How the elements of a frame are coded; its number on the wire is `CODE_NUMBERS[code]`."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"
    TOPK = "topk"

    @property
    def is_biased(self) -> bool:
        """Whether what it leaves out is lost unless the sender adds it to what it sends next (error feedback)."""
        return self is Code.TOPK

    @property
    def is_coarse(self) -> bool:
        """Whether what it leaves out of an update changes how the model moves; the others leave next to nothing."""
        return self in (Code.INT4, Code.TOPK)


CODE_NUMBERS = {Code.FP32: 0, Code.FP16: 1, Code.BF16: 2, Code.INT8: 3, Code.INT4: 4, Code.TOPK: 5}
CODES = {number: code for code, number in CODE_NUMBERS.items()}

MAGIC = b"FB"
SCHEMA = 1
MAX_COUNT = 16 << 20
DEFAULT_RATIO = 0.01  # the share of elements that topk keeps

_FIELDS = struct.Struct("<2sBBQII")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """The header of one frame: `count` elements from `start` on, as `payload_bytes` bytes of `code`."""

    code: Code
    start: int
    count: int
    payload_bytes: int
    crc: int

    @property
    def stop(self) -> int:
        """One past the last element covered."""
        return self.start + self.count

    @classmethod
    def parse(cls, frame: bytes | memoryview) -> FrameHeader:
        """Read the header of a whole frame and check its length, not its checksum; raises DecodeError."""
        if len(frame) < HEADER_BYTES:
            raise DecodeError(f"a frame has at least {HEADER_BYTES} bytes, this one {len(frame)}: it was truncated")
        magic, schema, code, start, count, payload_bytes = _FIELDS.unpack_from(frame)
        if magic != MAGIC:
            raise DecodeError(f"a frame starts with {MAGIC!r}, this one with {magic!r}")
        if schema != SCHEMA:
            raise DecodeError(f"frame schema {schema} is unknown, this fedbus reads {SCHEMA}: upgrade the older side")
        if code not in CODES:
            raise DecodeError(f"frame code {code} is unknown, this fedbus reads 0 to {max(CODES)}")
        if not 0 < count <= MAX_COUNT:
            raise DecodeError(f"a frame covers 1 to {MAX_COUNT} elements, this one {count}")
        if payload_bytes != len(frame) - HEADER_BYTES:
            raise DecodeError(f"the header announces {payload_bytes} bytes, {len(frame) - HEADER_BYTES} follow")
        (crc,) = _CRC.unpack_from(frame, _FIELDS.size)
        return cls(code=CODES[code], start=start, count=count, payload_bytes=payload_bytes, crc=crc)


def build_frame(code: Code, start: int, count: int, payload: Sequence[bytes | memoryview]) -> bytes:
    """Put header and the parts of the payload together as one frame."""
    payload_bytes = sum(len(part) for part in payload)
    fields = _FIELDS.pack(MAGIC, SCHEMA, CODE_NUMBERS[code], start, count, payload_bytes)
    crc = zlib.crc32(fields)
    for part in payload:
        crc = zlib.crc32(part, crc)
    return b"".join((fields, _CRC.pack(crc), *payload))


def check_frame(frame: bytes | memoryview, numel: int) -> FrameHeader:
    """Parse the header, check its range against a model of `numel` elements and the checksum; raises DecodeError."""
    header = FrameHeader.parse(frame)
    if header.stop > numel:
        raise DecodeError(f"a frame covers elements {header.start} to {header.stop}, the model has {numel}")
    view = memoryview(frame)
    crc = zlib.crc32(view[HEADER_BYTES:], zlib.crc32(view[: _FIELDS.size]))
    if crc != header.crc:
        raise DecodeError(f"frame at element {header.start}: checksum {crc:08x}, expected {header.crc:08x}: damaged")
    return header


def split_frames(data: memoryview) -> Iterator[memoryview]:
    """Yield the frames that lie back to back in `data`, without checking them; DecodeError when the last one is cut."""
    at = 0
    while at < len(data):
        if len(data) - at < HEADER_BYTES:
            raise DecodeError(f"{len(data) - at} bytes are left after the last frame: expected none")
        size = HEADER_BYTES + int(_FIELDS.unpack_from(data, at)[-1])
        if size > len(data) - at:
            raise DecodeError(f"a frame of {size} bytes begins at byte {at}, {len(data) - at} are left: truncated")
        yield data[at : at + size]
        at += size
