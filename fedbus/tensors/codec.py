"""A flat float32 vector as frames, and back.

What lives here: cutting into frames, entropy coding, checks before anything is allocated. What may not: the arithmetic
of a code (see `codes`), the header (see `fedbus.core.protocol.frames`).

Payload of a frame: one u32 per plane, its stored bytes, then the planes; of topk first a u32, the elements kept. A
plane is stored raw when its stored length is its full length (known from code, count and kept), otherwise as one zstd
frame, which is shorter.
Values and the small section of the layout are always fp32; no frame crosses a border between sections. In an update
and in the delta of a version, frames of values hold the values themselves, not differences, and those that have not
changed are left out; see `fedbus.core.protocol.layout`.
Frames are independent of each other and deterministic given vector, code, seed and kind of device; what they decode to
is the same on every device.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
import zstandard
from torch import Tensor

from fedbus.core.protocol.frames import (
    DEFAULT_RATIO,
    HEADER_BYTES,
    MAX_COUNT,
    Code,
    FrameHeader,
    build_frame,
    check_frame,
)
from fedbus.core.protocol.layout import VALUE_FRAME, Layout
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
    changed: Collection[int] | None = None,
) -> Iterator[bytes]:
    """Yield the frames of `flat` in order of start, covering [0, numel) exactly once.

    `changed`: where the frames of values start that are written, see `changed_values`; None: all.

    `flat` is float32 [numel] on any device and only read; on a device other than the CPU the codes are made there and
    only they come to the host. A frame is at most `chunk_bytes` (16 KiB or more) plus 0.2 %; each reads its elements
    when it is taken. `seed` (>= 0) drives stochastic rounding; `to_hidden`: the frames lead to the hidden params, int8
    and int4 round to nearest and their scales are powers of two, so that hidden params stay short sums of these;
    `ratio` in (0, 1] is the share that topk keeps of each frame. LayoutError when `flat` does not fit the layout.
    """
    _check_flat(flat, layout)
    compressor = zstandard.ZstdCompressor(compression_params=_ZSTD)
    work = Workspace()
    for section, first, last in _cuts(layout, code, chunk_bytes, changed):
        recipe = Recipe(seed=seed, start=first, to_hidden=to_hidden, ratio=ratio)
        planes = _planes(flat[first:last].detach(), section, recipe, work)
        yield build_frame(section, first, last - first, _pack(section, planes, compressor))


def frame_count(
    layout: Layout,
    code: Code,
    *,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    changed: Collection[int] | None = None,
) -> int:
    """How many frames `encode` will yield: known before any is made."""
    return sum(1 for _ in _cuts(layout, code, chunk_bytes, changed))


def changed_values(flat: Tensor, before: Tensor, layout: Layout) -> tuple[int, ...]:
    """Return where the frames of values start in which `flat` differs from `before`, float32 [numel] both.

    Of a model of which nothing is learnt, the first frame at least: an update is never empty.
    """
    ranges = layout.value_ranges()
    changed = tuple(start for start, stop in ranges if not torch.equal(flat[start:stop], before[start:stop]))
    return changed if changed or layout.learnt_numel else tuple(start for start, _ in ranges[:1])


def _cuts(
    layout: Layout, code: Code, chunk_bytes: int, changed: Collection[int] | None
) -> Iterator[tuple[Code, int, int]]:
    """Every frame in order: its code, where it starts and stops."""
    for start, stop in layout.value_ranges():
        if changed is None or start in changed:
            yield Code.FP32, start, stop
    small, coded = (layout.value_numel, layout.exact_numel), (layout.exact_numel, layout.numel)
    for section, (start, stop) in ((Code.FP32, small), (code, coded)):
        coder = CODERS[section]
        step = min(max(int(chunk_bytes / coder.item_bytes) // BLOCK, 1) * BLOCK, coder.max_count)
        for first in range(start, stop, step):
            yield section, first, min(first + step, stop)


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
    return _decode_frame(frame, layout, _Tools().decompressor)


def _decode_frame(frame: Frame, layout: Layout, decompressor: zstandard.ZstdDecompressor) -> tuple[FrameHeader, Tensor]:
    header, planes = _open(frame, layout, decompressor)
    values = torch.empty(header.count, dtype=torch.float32)
    with np.errstate(all="ignore"):
        _apply_tiles_(values, CODERS[header.code].decoder(planes, header.count), _write_, Workspace())
    return header, values


def decode_all_(out: Tensor, frames: Iterable[Frame], layout: Layout) -> None:
    """Write a whole vector: frames that cover [0, numel) exactly once, in order of start.

    Raises DecodeError at the first frame that is invalid or out of place; those before it have been applied.
    """
    _decode_in_order_(out, frames, layout, _write_, values_=_write_, whole=True)


def decode_change_(out: Tensor, frames: Iterable[Frame], layout: Layout, *, add: bool = False) -> tuple[int, ...]:
    """Write an update or the delta of a version, of what is learnt, or `add` it; values are written in both cases.

    Frames of values may be missing: `out` stays as it is there. Returns where those start that came. Otherwise like
    `decode_all_`.
    """
    return _decode_in_order_(out, frames, layout, _add_ if add else _write_, values_=_write_, whole=False)


def decode_fold_all_(out: Tensor, frames: Iterable[Frame], layout: Layout, factor: float) -> None:
    """Add factor times the delta of what is learnt to `out`, float32 [learnt_numel]; values are passed over.

    Nothing as large as the model is made beside `out`. Otherwise like `decode_change_` and `decode_fold_`.
    """
    _decode_in_order_(out, frames, layout, _fold_with(factor), values_=None, whole=False)


def decode_values(frames: Iterable[Frame], layout: Layout) -> Iterator[tuple[int, Tensor]]:
    """Yield (start, float32 [count]) of every frame of values of an update, in order; no later frame is asked for."""
    decompressor = _Tools().decompressor
    for frame in frames:
        if FrameHeader.parse(frame).start >= layout.value_numel:
            return
        header, values = _decode_frame(frame, layout, decompressor)
        yield header.start, values


def _decode_in_order_(
    out: Tensor, frames: Iterable[Frame], layout: Layout, apply_: _Apply, *, values_: _Apply | None, whole: bool
) -> tuple[int, ...]:
    """Apply frames in order: `apply_` on what is learnt, `values_` on values (None: only check them).

    Unless the vector is `whole`, frames of values may be missing. Returns where those start that came.
    """
    tools = _Tools()
    covered, came = 0, []
    for frame in frames:
        start = FrameHeader.parse(frame).start
        if start < layout.value_numel:
            came.append(start)
        if start != covered and (whole or not covered < start <= layout.value_numel):
            raise DecodeError(f"the next frame must start at element {covered}, this one starts at {start}")
        covered = _decode_(out, frame, layout, apply_ if start >= layout.value_numel else values_, tools).stop
    if covered != layout.numel and (whole or covered < layout.value_numel or layout.learnt_numel):
        raise DecodeError(f"the frames cover {covered} of {layout.numel} elements: some are missing")
    return tuple(came)


def _check_flat(flat: Tensor, layout: Layout, *, numel: int | None = None) -> None:
    numel = layout.numel if numel is None else numel
    if flat.dtype != torch.float32 or flat.shape != (numel,) or not flat.is_contiguous():
        found = f"{flat.dtype} {list(flat.shape)}{'' if flat.is_contiguous() else ' with strides'}"
        raise LayoutError(f"expected a contiguous float32 vector of {numel} elements, found {found}")


def _pack(code: Code, planes: Sequence[U8], compressor: zstandard.ZstdCompressor) -> list[bytes | memoryview]:
    stored: list[bytes | memoryview] = []
    for plane in planes:
        squeezed = compressor.compress(plane.data)
        stored.append(squeezed if len(squeezed) < plane.size * _WORTH else plane.data)
    kept = [_KEPT.pack(planes[0].size)] if CODERS[code].sparse else []
    return [*kept, struct.pack(f"<{len(stored)}I", *map(len, stored)), *stored]


def _decode_(out: Tensor, frame: Frame, layout: Layout, apply_: _Apply | None, tools: _Tools) -> FrameHeader:
    """Apply a frame to its place in `out`; None: only look at it. A shorter `out` holds what is learnt alone."""
    first = layout.value_numel if out.numel() == layout.learnt_numel else 0
    _check_flat(out, layout, numel=layout.numel - first)
    header, planes = _open(frame, layout, tools.decompressor)
    if apply_ is None:
        return header
    place = out[header.start - first : header.stop - first]
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
    if header.start < layout.value_numel and layout.value_stop(header.start) != header.stop:
        raise DecodeError(
            f"no frame of values goes from element {header.start} to {header.stop}: those of this layout are cut at "
            f"multiples of {VALUE_FRAME}"
        )
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
