"""Numbers of sites kept in order, so that a decision about one site does not look at all others.

A number that changes costs a search and a shift within one list (some microseconds at 10,000 sites), a median without
one site costs a search. Medians are those of `statistics`, sums those of `math.fsum`, to the bit.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import Generic, TypeVar

Number = TypeVar("Number", int, float)

_FINEST = 1074
"""Every finite float is a whole multiple of 2^-1074."""


class SortedNumbers(Generic[Number]):
    """At most one number a site; never NaN."""

    def __init__(self) -> None:
        self._of: dict[str, Number] = {}
        self._numbers: list[Number] = []

    def put(self, site: str, number: Number | None) -> None:
        """Set the number of a site; None: it has none."""
        old = self._of.pop(site, None)
        if old is not None:
            del self._numbers[bisect_left(self._numbers, old)]
        if number is not None:
            self._of[site] = number
            insort(self._numbers, number)

    def count_without(self, site: str) -> int:
        """Return how many other sites have a number."""
        return len(self._numbers) - (site in self._of)

    def median_without(self, site: str, *, least: int) -> float | None:
        """Return the median of the other sites' numbers; None with fewer than `least` of them, which is >= 1."""
        have = self.count_without(site)
        if have < least:
            return None
        high = self._other(site, have // 2)
        return high if have % 2 else (self._other(site, have // 2 - 1) + high) / 2

    def median_low_without(self, site: str, *, least: int) -> Number | None:
        """Return the lower median of the other sites' numbers; None with fewer than `least` of them."""
        have = self.count_without(site)
        return self._other(site, (have - 1) // 2) if have >= least else None

    def least_and_median_low_with(self, more: Number) -> tuple[Number, Number]:
        """Return the least and the lower median of all numbers and one more."""
        middle, place = len(self._numbers) // 2, bisect_left(self._numbers, more)
        if middle == place:
            return min(self._numbers[0], more) if self._numbers else more, more
        return min(self._numbers[0], more), self._numbers[middle - (middle > place)]

    def _other(self, site: str, index: int) -> Number:
        """The number at `index` of the list that does not hold the site's own."""
        own = self._of.get(site)
        return self._numbers[index + (own is not None and index >= bisect_left(self._numbers, own))]


class ExactSum:
    """A sum of floats >= 0 that come and go, kept as a whole multiple of 2^-1074: nothing is rounded on the way."""

    def __init__(self) -> None:
        self._multiple = 0
        self._infinite = 0

    def add(self, number: float, *, times: int = 1) -> None:
        """Add a number; with `times` = -1 take out one that was added."""
        if math.isinf(number):
            self._infinite += times
            return
        numerator, denominator = number.as_integer_ratio()
        self._multiple += times * (numerator << (_FINEST - denominator.bit_length() + 1))

    @property
    def value(self) -> float:
        """The sum, rounded once; infinite when it is above all floats."""
        try:
            return math.inf if self._infinite else self._multiple / (1 << _FINEST)
        except OverflowError:
            return math.inf
