"""A flat float32 vector as frames, and back.

What lives here: cutting into frames, entropy coding, checks before anything is allocated. What may not: the arithmetic
of a code (see `codes`), the header (see `fedbus.core.frames`).

Payload of a frame: one u32 per plane, its stored bytes, then the planes; of topk first a u32, the elements kept. A
plane is stored raw when its stored length is its full length (known from code, count and kept), otherwise as one zstd
frame, which is shorter.
The small section of the layout is always fp32; no frame crosses its border.
Frames are independent of each other and deterministic given vector, code, seed and kind of device; what they decode to
is the same on every device.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import zstandard
from torch import Tensor

from fedbus.core.frames import DEFAULT_RATIO, HEADER_BYTES, MAX_COUNT, Code, FrameHeader, build_frame, check_frame
from fedbus.core.layout import Layout
from fedbus.errors import DecodeError, LayoutError
from fedbus.tensors import codes_torch
from fedbus.tensors.blocks import BLOCK, F32, TILE, U8, DecodeTile, Recipe, Workspace, tiles
from fedbus.tensors.codes import CODERS

DEFAULT_CHUNK_BYTES = 1 << 20

# Level 1 finds rare short matches in the exponent plane, which cost time and hurt its literals. With long matches only
# (7 bytes, a table of 64) the same plane takes a third of the time and comes out a sixth smaller; zeros still vanish.
_ZSTD = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7
)
# A plane that zstd cannot shrink by 1/32 is stored raw: reading it back would cost more than it saves.
_WORTH = 31 / 32
_KEPT = struct.Struct("<I")

Frame = bytes | memoryview


def encode(
    flat: Tensor,
    layout: Layout,
    code: Code,
    *,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    seed: int,
    to_hidden: bool = False,
    ratio: float = DEFAULT_RATIO,
) -> Iterator[bytes]:
    """Yield the frames of `flat` in order of start, covering [0, numel) exactly once.

    `flat` is float32 [numel] on any device and only read; on a device other than the CPU the codes are made there and
    only they come to the host. A frame is at most `chunk_bytes` (16 KiB or more) plus 0.2 %; each reads its elements
    when it is taken. `seed` (>= 0) drives stochastic rounding; `to_hidden`: the frames lead to the hidden params, int8
    and int4 round to nearest and their scales are powers of two, so that hidden params stay short sums of these;
    `ratio` in (0, 1] is the share that topk keeps of each frame. LayoutError when `flat` does not fit the layout.
    """
    _check_flat(flat, layout)
    compressor = zstandard.ZstdCompressor(compression_params=_ZSTD)
    work = Workspace()
    for section, starts, stop in _sections(layout, code, chunk_bytes):
        for first in starts:
            last = min(first + starts.step, stop)
            recipe = Recipe(seed=seed, start=first, to_hidden=to_hidden, ratio=ratio)
            planes = _planes(flat[first:last].detach(), section, recipe, work)
            yield build_frame(section, first, last - first, _pack(section, planes, compressor))


def frame_count(layout: Layout, code: Code, *, chunk_bytes: int = DEFAULT_CHUNK_BYTES) -> int:
    """How many frames `encode` will yield: known before any is made."""
    return sum(len(starts) for _, starts, _ in _sections(layout, code, chunk_bytes))


def _sections(layout: Layout, code: Code, chunk_bytes: int) -> Iterator[tuple[Code, range, int]]:
    """The exact section and the coded one: code, where its frames start, where it stops."""
    for section, start, stop in ((Code.FP32, 0, layout.exact_numel), (code, layout.exact_numel, layout.numel)):
        coder = CODERS[section]
        step = min(max(int(chunk_bytes / coder.item_bytes) // BLOCK, 1) * BLOCK, coder.max_count)
        yield section, range(start, stop, step), stop


def _planes(values: Tensor, code: Code, recipe: Recipe, work: Workspace) -> list[U8]:
    if values.device.type != "cpu":
        return codes_torch.to_host(codes_torch.CODERS[code].encode(values, recipe))
    with np.errstate(all="ignore"):  # values that are not finite travel as NaN
        return CODERS[code].encode(values.numpy(), recipe, work)


class _Tools:
    """What decoding one frame needs and the next can use again."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_COUNT)
        self.work = Workspace()


def decode_into_(out: Tensor, frame: Frame, layout: Layout) -> FrameHeader:
    """Write the elements of one frame to their place in `out`, float32 [numel] on any device.

    Raises DecodeError, and leaves `out` alone, unless the frame is valid and fits the layout. Memory beyond `out` is
    bounded by what the frame's own count needs, at most 16 Mi elements. LayoutError when `out` does not fit the layout.
    """
    return _decode_(out, frame, layout, _write_, _Tools())


def decode_add_(out: Tensor, frame: Frame, layout: Layout) -> FrameHeader:
    """Add the elements of one frame to their place in `out`; otherwise like `decode_into_`."""
    return _decode_(out, frame, layout, _add_, _Tools())


def decode_fold_(out: Tensor, frame: Frame, layout: Layout, factor: float) -> FrameHeader:
    """Add factor times the elements of one frame to their place in `out`; otherwise like `decode_into_`.

    Each product is rounded to float32 before it is added: the same bits as `Accumulator.fold_` of the decoded vector.
    """
    return _decode_(out, frame, layout, _fold_with(factor), _Tools())


_Apply = Callable[[Tensor, Tensor], object]


def _write_(place: Tensor, values: Tensor) -> object:
    return place.copy_(values)


def _add_(place: Tensor, values: Tensor) -> object:
    return place.add_(values)


def _fold_with(factor: float) -> _Apply:
    return lambda place, values: place.add_(values.mul_(factor))


def decode_frame(frame: Frame, layout: Layout) -> tuple[FrameHeader, Tensor]:
    """Return the header and the elements of one frame, float32 [count] on the CPU; otherwise like `decode_into_`."""
    header, planes = _open(frame, layout, _Tools().decompressor)
    values = torch.empty(header.count, dtype=torch.float32)
    with np.errstate(all="ignore"):
        _apply_tiles_(values, CODERS[header.code].decoder(planes, header.count), _write_, Workspace())
    return header, values


def decode_all_(out: Tensor, frames: Iterable[Frame], layout: Layout, *, add: bool = False) -> None:
    """Write (or `add`) frames that cover [0, numel) exactly once, in order of start.

    Raises DecodeError at the first frame that is invalid or out of place; those before it have been applied.
    """
    _decode_in_order_(out, frames, layout, _add_ if add else _write_)


def decode_fold_all_(out: Tensor, frames: Iterable[Frame], layout: Layout, factor: float) -> None:
    """Add factor times the vector of frames that cover [0, numel) exactly once, in order of start.

    Nothing as large as the model is made beside `out`. Otherwise like `decode_all_` and `decode_fold_`.
    """
    _decode_in_order_(out, frames, layout, _fold_with(factor))


def _decode_in_order_(out: Tensor, frames: Iterable[Frame], layout: Layout, apply_: _Apply) -> None:
    tools = _Tools()
    covered = 0
    for frame in frames:
        start = FrameHeader.parse(frame).start
        if start != covered:
            raise DecodeError(f"the next frame must start at element {covered}, this one starts at {start}")
        covered = _decode_(out, frame, layout, apply_, tools).stop
    if covered != layout.numel:
        raise DecodeError(f"the frames cover {covered} of {layout.numel} elements: some are missing")


def _check_flat(flat: Tensor, layout: Layout) -> None:
    if flat.dtype != torch.float32 or flat.shape != (layout.numel,) or not flat.is_contiguous():
        found = f"{flat.dtype} {list(flat.shape)}{'' if flat.is_contiguous() else ' with strides'}"
        raise LayoutError(f"expected a contiguous float32 vector of {layout.numel} elements, found {found}")


def _pack(code: Code, planes: Sequence[U8], compressor: zstandard.ZstdCompressor) -> list[bytes | memoryview]:
    stored: list[bytes | memoryview] = []
    for plane in planes:
        squeezed = compressor.compress(plane.data)
        stored.append(squeezed if len(squeezed) < plane.size * _WORTH else plane.data)
    kept = [_KEPT.pack(planes[0].size)] if CODERS[code].sparse else []
    return [*kept, struct.pack(f"<{len(stored)}I", *map(len, stored)), *stored]


def _decode_(out: Tensor, frame: Frame, layout: Layout, apply_: _Apply, tools: _Tools) -> FrameHeader:
    _check_flat(out, layout)
    header, planes = _open(frame, layout, tools.decompressor)
    place = out[header.start : header.stop]
    if place.device.type != "cpu":
        apply_(place, codes_torch.decode(header.code, planes, header.count, place.device))
        return header
    with np.errstate(all="ignore"):  # scales may be NaN, or anything in a forged frame: guards look at the values
        decode_tile_ = CODERS[header.code].decoder(planes, header.count)
        _apply_tiles_(place, decode_tile_, apply_, tools.work)
    return header


def _apply_tiles_(place: Tensor, decode_tile_: DecodeTile, apply_: _Apply, work: Workspace) -> None:
    if apply_ is _write_:
        whole: F32 = place.numpy()
        for tile in tiles(place.numel()):
            decode_tile_(tile.start, whole[tile])
        return
    values = work.take("values", min(TILE, place.numel()), np.float32)
    for tile in tiles(place.numel()):
        part = values[: tile.stop - tile.start]
        decode_tile_(tile.start, part)
        apply_(place[tile], torch.from_numpy(part))


def _open(frame: Frame, layout: Layout, decompressor: zstandard.ZstdDecompressor) -> tuple[FrameHeader, list[U8]]:
    """Check a frame against the layout and return its planes, each of exactly the bytes its count asks for."""
    header = check_frame(frame, layout.numel)
    if header.start < layout.exact_numel and (header.code is not Code.FP32 or header.stop > layout.exact_numel):
        raise DecodeError(
            f"elements 0 to {layout.exact_numel} come as fp32 in frames of their own, "
            f"found {header.code} from {header.start} to {header.stop}"
        )
    coder = CODERS[header.code]
    if header.count > coder.max_count:
        raise DecodeError(f"a {header.code} frame covers at most {coder.max_count} elements, this one {header.count}")
    payload = memoryview(frame)[HEADER_BYTES:]
    kept = header.count
    if coder.sparse:
        kept, payload = _kept(payload, header.count)
    return header, _unpack(payload, coder.plane_bytes(header.count, kept), decompressor)


def _kept(payload: memoryview, count: int) -> tuple[int, memoryview]:
    if len(payload) < _KEPT.size:
        raise DecodeError("the payload ends within the number of elements kept")
    (kept,) = _KEPT.unpack_from(payload)
    if kept > count:
        raise DecodeError(f"the frame says that it keeps {kept} of {count} elements")
    return kept, payload[_KEPT.size :]


def _unpack(payload: memoryview, sizes: tuple[int, ...], decompressor: zstandard.ZstdDecompressor) -> list[U8]:
    table = struct.Struct(f"<{len(sizes)}I")
    if len(payload) < table.size:
        raise DecodeError(f"the payload ends within its table of {len(sizes)} planes")
    lengths = table.unpack_from(payload)
    if table.size + sum(lengths) != len(payload):
        raise DecodeError(f"the planes need {table.size + sum(lengths)} bytes, the payload has {len(payload)}")
    planes: list[U8] = []
    start = table.size
    for length, size in zip(lengths, sizes, strict=True):
        planes.append(_plane(payload[start : start + length], size, decompressor))
        start += length
    return planes


def _plane(stored: memoryview, size: int, decompressor: zstandard.ZstdDecompressor) -> U8:
    if len(stored) == size:
        return np.frombuffer(stored, np.uint8)
    if len(stored) > size:
        raise DecodeError(f"a plane of {size} bytes is stored in {len(stored)}")
    try:
        # The decompressor allocates what the zstd frame announces, so that is compared before it runs.
        if zstandard.get_frame_parameters(stored).content_size != size:
            raise DecodeError(f"a zstd plane does not announce the {size} bytes that its frame's count asks for")
        plane = decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise DecodeError(f"a plane of {size} bytes is no valid zstd frame: {exc}") from exc
    if len(plane) != size:
        raise DecodeError(f"a zstd plane holds {len(plane)} bytes instead of {size}")
    return np.frombuffer(plane, np.uint8)
