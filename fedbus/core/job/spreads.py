"""What independent sites make together of the spreads that each says: the 95 % interval of their mean.

The mean over sites is weighted as in `scores.mean_of`, each site bounded by the others. The sites' test cases are
independent, so the distribution of the mean is the convolution of the sites' weighted ones: POINTS evenly spaced levels
of each, in a seeded order of its own (a Latin hypercube, McKay, Beckman & Conover 1979), added up. From MOST_CONVOLVED
sites on their variances are added, and the sum is normal. This is the spread over patients like those of *these* sites;
how a site that is not here would do is another question, which it does not answer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from statistics import NormalDist

from fedbus.core.job.scores import bounded, in_proportion, mean_of
from fedbus.core.protocol.spread import LEVELS, Spread

POINTS = 1024
MOST_CONVOLVED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over `sites` with so many `cases`, and its 95 % interval. examples: of these sites together."""

    value: float
    low: float
    high: float
    sites: int
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OfSite:
    """What one site says: how many examples it counts for, and its spread."""

    examples: int
    spread: Spread


def together(found: Mapping[str, OfSite]) -> Estimate | None:
    """Return the mean over the sites that say a spread with quantiles, and its interval; None: no site does."""
    known = [of_site for _, of_site in sorted(found.items()) if of_site.spread.quantiles and of_site.examples > 0]
    if not known:
        return None
    values = [(of_site.examples, of_site.spread.value) for of_site in known]
    weighed = list(zip(_weights(values), _within([one.spread for one in known]), strict=True))
    low, high = _normal(weighed) if len(known) > MOST_CONVOLVED else _convolved(weighed)
    value = mean_of(values)
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        sites=len(known),
        cases=sum(one.spread.cases for one in known),
    )


def _weights(values: Sequence[tuple[int, float]]) -> list[float]:
    counts = [examples for examples, _ in bounded(values)]
    whole = sum(counts)
    return [count / whole for count in counts]


def _within(spreads: Sequence[Spread]) -> list[Spread]:
    """The same, their quantiles as much in proportion to the other sites' values as a value has to be."""
    limits = in_proportion([spread.value for spread in spreads])
    return [
        replace(spread, quantiles=tuple(min(max(value, low), high) for value in spread.quantiles))
        for spread, (low, high) in zip(spreads, limits, strict=True)
    ]


def _convolved(weighed: Sequence[tuple[float, Spread]]) -> tuple[float, float]:
    total = [0.0] * POINTS
    for at, (weight, spread) in enumerate(weighed):
        points, order = _points(spread.quantiles), _order(at)
        total = [have + weight * points[place] for have, place in zip(total, order, strict=True)]
    total.sort()
    return _quantile(total, 0.025), _quantile(total, 0.975)


def _points(quantiles: Sequence[float]) -> list[float]:
    """The distribution as POINTS values of equal weight: straight between the quantiles, flat beyond them."""
    return [
        quantiles[at] + share * (quantiles[at + 1] - quantiles[at]) if share is not None else quantiles[at]
        for at, share in _places()
    ]


@cache
def _places() -> tuple[tuple[int, float | None], ...]:
    found: list[tuple[int, float | None]] = []
    for point in range(POINTS):
        level = (point + 0.5) / POINTS
        above = next((at for at, known in enumerate(LEVELS) if known > level), len(LEVELS))
        if above == 0 or above == len(LEVELS):
            found.append((0 if above == 0 else len(LEVELS) - 1, None))
        else:
            found.append((above - 1, (level - LEVELS[above - 1]) / (LEVELS[above] - LEVELS[above - 1])))
    return tuple(found)


@cache
def _order(at: int) -> tuple[int, ...]:
    """The order of the points of the site at this place: the same in every process."""
    places = list(range(POINTS))
    if at:
        random.Random(f"spreads/{at}").shuffle(places)
    return tuple(places)


def _quantile(values: Sequence[float], level: float) -> float:
    """Between sorted values, as numpy's default has it."""
    place = level * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def _normal(weighed: Sequence[tuple[float, Spread]]) -> tuple[float, float]:
    middle, variance = 0.0, 0.0
    for weight, spread in weighed:
        mean, square = _moments(spread.quantiles)
        middle += weight * mean
        variance += weight**2 * max(0.0, square - mean**2)
    wide = NormalDist().inv_cdf(0.975) * math.sqrt(variance)
    return middle - wide, middle + wide


def _moments(quantiles: Sequence[float]) -> tuple[float, float]:
    """The mean and the mean square: straight between the quantiles, all that is beyond them at the ends."""
    ends = LEVELS[0], 1 - LEVELS[-1]
    mean = ends[0] * quantiles[0] + ends[1] * quantiles[-1]
    square = ends[0] * quantiles[0] ** 2 + ends[1] * quantiles[-1] ** 2
    for (first, low), (last, high) in pairwise(zip(LEVELS, quantiles, strict=True)):
        mean += (last - first) * (low + high) / 2
        square += (last - first) * (low * low + low * high + high * high) / 3
    return mean, square
