"""Numbers by version, as columns of a bounded length: what a picture draws of one site, or of the whole job.

Beyond `most` points it keeps one point in every `stride` versions, the first there, and always the newest point of all;
the stride doubles each time that there are too many. So a job of a million versions takes the memory of one of `most`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping

MOST_POINTS = 2_000
MOST_COLUMNS = 12
MOST_NAME = 64
MOST_VERSION = 2**53
"""Beyond this a number is none that a browser can count with."""


class Curve:
    """Columns by version, in order of versions. A column has NaN where a point has no number of its name.

    changed, thinned: the stamps, given to `put`, at which a point was put last and at which many were left out last;
    stamps: of each point. So whoever has drawn it needs only what is behind the first point that is newer, see `since`.
    """

    __slots__ = ("_most", "at", "changed", "columns", "stamps", "stride", "thinned", "versions")

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most = most
        self.stride = 1
        self.versions = array("q")
        self.at = array("d")
        self.columns: dict[str, array[float]] = {}
        self.stamps = array("q")
        self.changed = self.thinned = -1

    def __len__(self) -> int:
        return len(self.versions)

    def put(self, version: int, at: float, values: Mapping[str, float], *, stamp: int = 0) -> None:
        """The numbers of a version at a time, in seconds since the epoch; its earlier ones are replaced, not joined.

        Stamps never fall.
        """
        if not 0 <= version < MOST_VERSION:
            return
        self.changed = stamp
        if not self.versions or version > self.versions[-1]:
            self._append(version, at)
            self._set(len(self) - 1, values)
            self.stamps[-1] = stamp
        else:
            index = self._index_of(version, at)
            if index is not None:
                self._set(index, values)
                self.stamps[index] = stamp
        while len(self) > self._most:
            self._thin()

    def since(self, stamp: int) -> int:
        """The index from which on points differ from what they were after the put with this stamp; all: 0."""
        if self.changed <= stamp:
            return len(self)
        if self.thinned > stamp:
            return 0
        return next((index for index, of_point in enumerate(self.stamps) if of_point > stamp), len(self))

    def newest(self, name: str) -> float:
        """The last finite number of a column; NaN when there is none."""
        return next((value for value in reversed(self.columns.get(name, ())) if math.isfinite(value)), math.nan)

    def _append(self, version: int, at: float) -> None:
        """A point behind all others, in place of the last one where that is kept for being the last alone."""
        if len(self) >= 2 and self._bucket(-2) == self._bucket(-1):
            self._delete(len(self) - 1)
        self._insert(len(self), version, at)

    def _index_of(self, version: int, at: float) -> int | None:
        """Where the point of an older version is, or is put; None: another one stands for it."""
        index = bisect_left(self.versions, version)
        if self.versions[index] == version:
            return index
        before = index > 0 and self._bucket(index - 1) == version // self.stride
        if before or self._bucket(index) == version // self.stride:
            return None
        self._insert(index, version, at)
        return index

    def _bucket(self, index: int) -> int:
        return self.versions[index] // self.stride

    def _insert(self, index: int, version: int, at: float) -> None:
        self.versions.insert(index, version)
        self.at.insert(index, at)
        self.stamps.insert(index, 0)
        for column in self.columns.values():
            column.insert(index, math.nan)

    def _delete(self, index: int) -> None:
        del self.versions[index], self.at[index], self.stamps[index]
        for column in self.columns.values():
            del column[index]

    def _set(self, index: int, values: Mapping[str, float]) -> None:
        for column in self.columns.values():
            column[index] = math.nan
        for name, value in values.items():
            if name not in self.columns:
                if len(self.columns) >= MOST_COLUMNS or len(name) > MOST_NAME:
                    continue
                self.columns[name] = array("d", [math.nan]) * len(self)
            self.columns[name][index] = value

    def _thin(self) -> None:
        """Double the stride: keep the first point of every bucket, and the last of all."""
        self.stride *= 2
        self.thinned = self.changed
        last = len(self) - 1
        kept = [i for i in range(len(self)) if i in (0, last) or self._bucket(i) != self._bucket(i - 1)]
        self.versions = array("q", (self.versions[i] for i in kept))
        self.at = array("d", (self.at[i] for i in kept))
        self.stamps = array("q", (self.stamps[i] for i in kept))
        self.columns = {name: array("d", (column[i] for i in kept)) for name, column in self.columns.items()}
