"""Which of a few sites stands apart: by the others alone, so that its own value does not hide it.

A federation has two to ten sites, too few for tests that count on many. A site is named when the others, at least two,
agree among themselves and it lies far from their median; of two that differ nobody can say which one is wrong. The
median of examples that are spread widely is chance (an organ on the left or on the right): see `surely`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedbus.core.protocol.statistics import Count, Distribution

UNITS = (10.0, 25.4, 100.0, 1000.0, 1e4, 1e6)
"""Factors between units, or between numbers written with and without a decimal point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Who stands apart. sites: one that is named, or all when they only differ. ratio: of its value to the others'."""

    sites: tuple[str, ...]
    ratio: float = 1.0
    value: float = 0.0
    usual: float = 0.0

    @property
    def named(self) -> bool:
        return len(self.sites) == 1


def apart(values: Mapping[str, float], *, factor: float) -> Apart | None:
    """Who is apart from the others by more than a factor, of values above 0; None: nobody."""
    found = {site: math.log(value) for site, value in values.items() if value > 0 and math.isfinite(value)}
    who = _apart(found, far=math.log(factor))
    if who is None:
        return None
    if len(who) > 1:
        return Apart(sites=who, ratio=max(values[s] for s in who) / min(values[s] for s in who))
    usual = math.exp(_of_others(found, who[0]))
    return Apart(sites=who, ratio=values[who[0]] / usual, value=values[who[0]], usual=usual)


def apart_by(values: Mapping[str, float], *, far: float) -> Apart | None:
    """Who is apart from the others by more than a distance; None: nobody."""
    who = _apart(values, far=far)
    if who is None:
        return None
    if len(who) > 1:
        return Apart(sites=who)
    return Apart(sites=who, value=values[who[0]], usual=_of_others(values, who[0]))


def _apart(values: Mapping[str, float], *, far: float) -> tuple[str, ...] | None:
    if len(values) < 2 or max(values.values()) - min(values.values()) <= far:
        return None
    if len(values) == 2:
        return tuple(sorted(values))
    by_distance = sorted(values, key=lambda site: -abs(values[site] - _of_others(values, site)))
    first = by_distance[0]
    rest = [values[site] for site in values if site != first]
    width = max(rest) - min(rest)
    distance = abs(values[first] - median(rest))
    if distance > far and width <= far and distance > 2 * width:
        return (first,)
    return tuple(sorted(values))


def _of_others(values: Mapping[str, float], site: str) -> float:
    return median(value for other, value in values.items() if other != site)


def surely(found: Apart, known: Mapping[str, Distribution], *, unless_known: bool) -> bool:
    """Whether the medians that were compared are apart by more than chance: a named site lies clear of all others.

    unless_known: the answer where a site has too few examples to say where its median lies.
    """
    ranges = {site: known[site].about_median for site in known}
    if not found.named:
        return True
    mine = ranges[found.sites[0]]
    others = [one for site, one in ranges.items() if site != found.sites[0] and known[site].median is not None]
    if mine is None or None in others:
        return unless_known
    return all(one is not None and (mine[0] > one[1] or mine[1] < one[0]) for one in others)


def unit_of(ratio: float, *, within: float = 0.05) -> float | None:
    """The factor of UNITS that a ratio, or its inverse, is near to; None: none."""
    for unit in UNITS:
        for factor in (unit, 1 / unit):
            if abs(math.log(ratio / factor)) <= within:
                return factor
    return None


def times(ratio: float) -> str:
    """A ratio in words: 1,000 times, or a 1,000th of."""
    unit = unit_of(ratio)
    exact = ratio if unit is None else unit
    return f"{exact:,.3g} times" if exact >= 1 else f"1/{1 / exact:,.3g} of"


def share(count: Count, of: Count) -> float:
    """A count as a share of another; one that is withheld counts for none."""
    return (count or 0) / of if of else 0.0


def said(count: Count) -> str:
    """A count for people."""
    return "few" if count is None else f"{count:,}"


def enough(count: Count) -> int:
    """A count of which a withheld one is at least one."""
    return 1 if count is None else count


def in_words(names: Sequence[str]) -> str:
    """Return 'a', 'a and b', 'a, b and c'."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
