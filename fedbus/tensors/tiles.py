"""Cache-sized pieces of flat vectors, for arithmetic that would otherwise walk through memory several times."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

TILE = 1 << 16  # elements: 256 KiB of float32


def tiles(*flats: Tensor, size: int = TILE) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of the same range of every vector [numel], `size` elements at a time (256 KiB)."""
    for start in range(0, flats[0].numel(), size):
        yield tuple(flat[start : start + size] for flat in flats)
