"""A flat float32 vector as frames, and back.

What lives here: cutting into frames, entropy coding, checks before anything is allocated. What may not: the arithmetic
of a code (see `codes`), the header (see `fedbus.core.frames`).

Payload of a frame: one u32 per plane, its stored bytes, then the planes. A plane is stored raw when its stored length
is its full length (known from code and count), otherwise as one zstd frame, which is shorter.
The small section of the layout is always fp32; no frame crosses its border.
Frames are independent of each other and deterministic given vector, code and seed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import zstandard
from torch import Tensor

from fedbus.core.frames import HEADER_BYTES, MAX_COUNT, Code, FrameHeader, build_frame, check_frame
from fedbus.core.layout import Layout
from fedbus.errors import DecodeError, LayoutError
from fedbus.tensors.codes import BLOCK, CODERS, F32, U8, Coder

DEFAULT_CHUNK_BYTES = 1 << 20

# Level 1 finds rare short matches in the exponent plane, which cost time and hurt its literals. With long matches only
# (7 bytes, a table of 64) the same plane takes a third of the time and comes out a sixth smaller; zeros still vanish.
_ZSTD = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7
)
# A plane that zstd cannot shrink by 1/32 is stored raw: reading it back would cost more than it saves.
_WORTH = 31 / 32


def encode(
    flat: Tensor,
    layout: Layout,
    code: Code,
    *,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    seed: int,
    power_of_two: bool = False,
) -> Iterator[bytes]:
    """Yield the frames of `flat` in order of start, covering [0, numel) exactly once.

    `flat` is float32 [numel] on any device and only read. A frame is at most `chunk_bytes` (16 KiB or more) plus 0.2 %.
    `seed` (>= 0) drives stochastic rounding; `power_of_two` restricts int8 scales so that decoding is exact on every
    device. Raises LayoutError when `flat` does not fit the layout.
    """
    _check_flat(flat, layout)
    compressor = zstandard.ZstdCompressor(compression_params=_ZSTD)
    for section, starts, stop in _sections(layout, code, chunk_bytes):
        coder = CODERS[section]
        for first in starts:
            last = min(first + starts.step, stop)
            values = flat[first:last].detach().cpu().numpy()
            with np.errstate(all="ignore"):  # values that are not finite travel as NaN
                planes = coder.encode(values, (seed, first), power_of_two)
            yield build_frame(section, first, last - first, _pack(planes, compressor))


def frame_count(layout: Layout, code: Code, *, chunk_bytes: int = DEFAULT_CHUNK_BYTES) -> int:
    """How many frames `encode` will yield: known before any is made."""
    return sum(len(starts) for _, starts, _ in _sections(layout, code, chunk_bytes))


def _sections(layout: Layout, code: Code, chunk_bytes: int) -> Iterator[tuple[Code, range, int]]:
    """The exact section and the coded one: code, where its frames start, where it stops."""
    for section, start, stop in ((Code.FP32, 0, layout.exact_numel), (code, layout.exact_numel, layout.numel)):
        step = min(max(chunk_bytes // CODERS[section].item_bytes // BLOCK, 1) * BLOCK, MAX_COUNT)
        yield section, range(start, stop, step), stop


def decode_into_(out: Tensor, frame: bytes | memoryview, layout: Layout) -> FrameHeader:
    """Write the elements of one frame to their place in `out`, float32 [numel] on any device.

    Raises DecodeError, and leaves `out` alone, unless the frame is valid and fits the layout. Memory beyond `out` is
    bounded by what the frame's own count needs, at most 16 Mi elements. LayoutError when `out` does not fit the layout.
    """
    _check_flat(out, layout)
    header, coder, planes = _open(frame, layout)
    place = out[header.start : header.stop]
    if place.device.type == "cpu":
        _decode_(place.numpy(), coder, planes)
    else:
        place.copy_(_values(header, coder, planes))
    return header


def decode_add_(out: Tensor, frame: bytes | memoryview, layout: Layout) -> FrameHeader:
    """Add the elements of one frame to their place in `out`; otherwise like `decode_into_`."""
    _check_flat(out, layout)
    header, coder, planes = _open(frame, layout)
    place = out[header.start : header.stop]
    place.add_(_values(header, coder, planes).to(place.device))
    return header


def decode_frame(frame: bytes | memoryview, layout: Layout) -> tuple[FrameHeader, Tensor]:
    """Return the header and the elements of one frame, float32 [count] on the CPU; otherwise like `decode_into_`."""
    header, coder, planes = _open(frame, layout)
    return header, _values(header, coder, planes)


def decode_all_(out: Tensor, frames: Iterable[bytes | memoryview], layout: Layout, *, add: bool = False) -> None:
    """Write (or `add`) frames that cover [0, numel) exactly once, in order of start.

    Raises DecodeError at the first frame that is invalid or out of place; those before it have been applied.
    """
    decode_ = decode_add_ if add else decode_into_
    covered = 0
    for frame in frames:
        start = FrameHeader.parse(frame).start
        if start != covered:
            raise DecodeError(f"the next frame must start at element {covered}, this one starts at {start}")
        covered = decode_(out, frame, layout).stop
    if covered != layout.numel:
        raise DecodeError(f"the frames cover {covered} of {layout.numel} elements: some are missing")


def _check_flat(flat: Tensor, layout: Layout) -> None:
    if flat.dtype != torch.float32 or flat.shape != (layout.numel,) or not flat.is_contiguous():
        found = f"{flat.dtype} {list(flat.shape)}{'' if flat.is_contiguous() else ' with strides'}"
        raise LayoutError(f"expected a contiguous float32 vector of {layout.numel} elements, found {found}")


def _pack(planes: Sequence[U8], compressor: zstandard.ZstdCompressor) -> list[bytes | memoryview]:
    stored: list[bytes | memoryview] = []
    for plane in planes:
        squeezed = compressor.compress(plane.data)
        stored.append(squeezed if len(squeezed) < plane.size * _WORTH else plane.data)
    return [struct.pack(f"<{len(stored)}I", *map(len, stored)), *stored]


def _open(frame: bytes | memoryview, layout: Layout) -> tuple[FrameHeader, Coder, list[U8]]:
    """Check a frame against the layout and return its planes, each of exactly the bytes its count asks for."""
    header = check_frame(frame, layout.numel)
    if header.start < layout.exact_numel and (header.code is not Code.FP32 or header.stop > layout.exact_numel):
        raise DecodeError(
            f"elements 0 to {layout.exact_numel} come as fp32 in frames of their own, "
            f"found {header.code} from {header.start} to {header.stop}"
        )
    coder = CODERS[header.code]
    return header, coder, _unpack(memoryview(frame)[HEADER_BYTES:], coder.plane_bytes(header.count))


def _unpack(payload: memoryview, sizes: tuple[int, ...]) -> list[U8]:
    table = struct.Struct(f"<{len(sizes)}I")
    if len(payload) < table.size:
        raise DecodeError(f"the payload ends within its table of {len(sizes)} planes")
    lengths = table.unpack_from(payload)
    if table.size + sum(lengths) != len(payload):
        raise DecodeError(f"the planes need {table.size + sum(lengths)} bytes, the payload has {len(payload)}")
    planes: list[U8] = []
    start = table.size
    for length, size in zip(lengths, sizes, strict=True):
        planes.append(_plane(payload[start : start + length], size))
        start += length
    return planes


def _plane(stored: memoryview, size: int) -> U8:
    if len(stored) == size:
        return np.frombuffer(stored, np.uint8)
    if len(stored) > size:
        raise DecodeError(f"a plane of {size} bytes is stored in {len(stored)}")
    try:
        # The decompressor allocates what the zstd frame announces, so that is compared before it runs.
        if zstandard.get_frame_parameters(stored).content_size != size:
            raise DecodeError(f"a zstd plane does not announce the {size} bytes that its frame's count asks for")
        plane = zstandard.ZstdDecompressor(max_window_size=MAX_COUNT).decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise DecodeError(f"a plane of {size} bytes is no valid zstd frame: {exc}") from exc
    if len(plane) != size:
        raise DecodeError(f"a zstd plane holds {len(plane)} bytes instead of {size}")
    return np.frombuffer(plane, np.uint8)


def _values(header: FrameHeader, coder: Coder, planes: Sequence[U8]) -> Tensor:
    values: F32 = np.empty(header.count, np.float32)
    _decode_(values, coder, planes)
    return torch.from_numpy(values)


def _decode_(values: F32, coder: Coder, planes: Sequence[U8]) -> None:
    with np.errstate(all="ignore"):  # scales may be NaN, or anything in a forged frame: guards look at the values
        coder.decode_(planes, values)
