"""topk: the elements of a frame that are largest in size, by place and value; all others decode to zero.

    kept    ceil(ratio * count) elements with the largest |x|, never a zero (Stich et al. 2018, arXiv 1809.07599)
    places  gap to the place before, minus one: what is out of order or named twice cannot be written down
    values  as int8, blocks of 4096 kept values

Biased: what is left out must be fed back (see `feedback`), upwards by the site, downwards by the hidden params.
With 1 % kept a frame takes about 2 bytes for each kept element, 1/200 of fp32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedbus.errors import DecodeError
from fedbus.tensors.blocks import F32, U8, Coder, DecodeTile, Recipe, Workspace, scale_count, tiles
from fedbus.tensors.codes_int import INT8

Places = NDArray[np.signedinteger[Any]]

PLACE_BYTES = 3
MAX_FRAME = 1 << 21  # elements: so many at four bytes are the largest chunk that a job may ask for
_SAMPLE = 8192
_SIZE_BITS = np.int32(0x7FFF_FFFF)


def kept_count(count: int, ratio: float) -> int:
    """How many of `count` elements are kept at most."""
    return min(count, math.ceil(ratio * count))


def select(values: F32, kept: int) -> Places:
    """Return the places, ascending, of the `kept` largest |x| that are not zero; NaN counts as largest of all.

    Of equal sizes the first ones. Without its sign a float's bits, read as an integer, grow with it.
    """
    places = _at_least(values, _guess(values, kept))
    if places.size < kept:
        places = _at_least(values, np.int32(1))
    if places.size <= kept:
        return places
    sizes = values[places].view(np.int32) & _SIZE_BITS
    limit = np.partition(sizes, sizes.size - kept)[sizes.size - kept]
    chosen = sizes > limit
    ties = np.flatnonzero(sizes == limit)
    chosen[ties[: kept - np.count_nonzero(chosen)]] = True
    found: Places = places[chosen]
    return found


def _guess(values: F32, kept: int) -> np.int32:
    """A size that, judged by a sample, somewhat more than `kept` elements reach; at least 1, the smallest of all."""
    sample = values[:: -(-values.size // _SAMPLE)].view(np.int32) & _SIZE_BITS
    expected = kept * sample.size / values.size
    wanted = math.ceil(expected + 3 * math.sqrt(expected) + 3)
    if wanted >= sample.size:
        return np.int32(1)
    return np.int32(max(np.partition(sample, sample.size - wanted)[sample.size - wanted], 1))


def _at_least(values: F32, size: np.int32) -> Places:
    found = []
    for tile in tiles(values.size):
        places = np.flatnonzero((values[tile].view(np.int32) & _SIZE_BITS) >= size)
        places += tile.start
        found.append(places)
    return np.concatenate(found)


def _encode_topk(values: F32, recipe: Recipe, work: Workspace) -> list[U8]:
    places = select(values, kept_count(values.size, recipe.ratio))
    gaps = np.diff(places, prepend=-1).astype(np.uint32) - np.uint32(1)
    place_planes = np.ascontiguousarray(gaps.view(np.uint8).reshape(-1, 4)[:, :PLACE_BYTES].T)
    return [*place_planes, *INT8.encode(values[places], recipe, work)]


def _topk_decoder(planes: Sequence[U8], count: int) -> DecodeTile:
    *place_planes, codes, scales = planes
    places = _places(place_planes, count)
    values = np.empty(places.size, np.float32)
    decode_values_ = INT8.decoder([codes, scales], places.size)
    for tile in tiles(places.size):
        decode_values_(tile.start, values[tile])

    def decode_(start: int, out: F32) -> None:
        first, last = np.searchsorted(places, (start, start + out.size))
        out.fill(0)
        out[places[first:last] - start] = values[first:last]

    return decode_


def _places(planes: Sequence[U8], count: int) -> NDArray[np.int32]:
    """Places, ascending, each in [0, count); DecodeError when the last one is not."""
    gaps = np.zeros(planes[0].size, np.int32)
    for k, plane in enumerate(planes):
        gaps |= plane.astype(np.int32) << (8 * k)
    last = int(gaps.sum(dtype=np.int64)) + gaps.size - 1
    if last >= count:
        raise DecodeError(f"the last place of a topk frame is {last}, the frame covers {count} elements")
    gaps += 1
    places: NDArray[np.int32] = np.cumsum(gaps, dtype=np.int32)
    places -= 1
    return places


TOPK = Coder(
    item_bytes=PLACE_BYTES + 1,
    plane_bytes=lambda _, kept: (kept,) * (PLACE_BYTES + 1) + (4 * scale_count(kept),),
    encode=_encode_topk,
    decoder=_topk_decoder,
    sparse=True,
    max_count=MAX_FRAME,
)
