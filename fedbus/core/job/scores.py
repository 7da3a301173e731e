"""The scores of a job: what its sites measured of the versions, and the mean over sites that stop rules look at.

What lives here: one number per metric from many sites. What may not: when to stop (see `life`).

Sites are unequally fast and skip versions, so hardly any version is ever scored by all of them; a mean over those that
did score it would mostly be one over the fast sites. The mean here is that of each site's *newest* score, weighted by
num_examples; a version is scored when a site scores it and this mean exists. It lags by the slowest site, which is the
safe side for a stop rule. It exists once `quorum` sites have a score that counts.

A mean over the sites where something is finite says nothing of a version that is `broken` at another one: such a
version is never the best, and reaches no target. What one site says is bounded, from three sites on: it counts for at
most as many examples as all others together, and a value that is out of all proportion to the others' counts as though
it were at the end of what is in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from fedbus.core.protocol.spread import Spreads

Better = Literal["higher", "lower"]
MOST_METRICS = 64
"""So many metrics of a score are kept."""
OUT_OF_PROPORTION = 10.0
NO_SPREADS: Spreads = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One site's evaluation of a version.

    metrics: the finite ones, at most MOST_METRICS. not_finite: names of those that came out as NaN or infinity.
    spreads: of these metrics, where the site says how sure they are; differences: to the model that is compared to.
    """

    version: int
    metrics: Mapping[str, float]
    num_examples: int
    not_finite: tuple[str, ...] = ()
    spreads: Spreads = field(default_factory=dict)
    differences: Spreads = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        version: int,
        metrics: Mapping[str, float],
        num_examples: int,
        not_finite: Collection[str] = (),
        spreads: Spreads = NO_SPREADS,
        differences: Spreads = NO_SPREADS,
    ) -> Score:
        """A score as it came: what is not finite is told apart, what is too much is left out."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        others = sorted({*not_finite, *(metrics.keys() - finite.keys())})
        kept = dict(list(finite.items())[:MOST_METRICS])
        return cls(
            version=version,
            metrics=kept,
            num_examples=num_examples,
            not_finite=tuple(others[:MOST_METRICS]),
            spreads={name: spread for name, spread in spreads.items() if name in kept},
            differences={name: spread for name, spread in differences.items() if name in kept},
        )

    @property
    def broken(self) -> bool:
        """Whether the version is of no use at this site: its loss is not finite, or nothing that was measured is.

        Another metric alone may have no value there, such as the AUC of patients that are all ill.
        """
        return "loss" in self.not_finite or (not self.metrics and bool(self.not_finite))


class Scores:
    """The newest score of every site."""

    def __init__(self) -> None:
        self._newest: dict[str, Score] = {}

    def add(self, site: str, score: Score) -> bool:
        """Keep a site's score; False when it is older than the one known or has no examples."""
        known = self._newest.get(site)
        if score.num_examples <= 0 or (known is not None and score.version < known.version):
            return False
        self._newest[site] = score
        return True

    def keep_only(self, sites: Collection[str]) -> None:
        """Forget the scores of all other sites: a site that is gone must not hold the mean where it was."""
        self._newest = {site: score for site, score in self._newest.items() if site in sites}

    def drop(self, site: str) -> None:
        """Forget a site's score: it cannot score any more."""
        self._newest.pop(site, None)

    @property
    def not_finite(self) -> dict[str, Score]:
        """The newest scores with something that is not finite, by site."""
        return {site: score for site, score in sorted(self._newest.items()) if score.not_finite}

    @property
    def broken(self) -> bool:
        """Whether the newest version that some site scored is of no use there."""
        return any(score.broken for score in self._newest.values())

    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics that any site reports."""
        return tuple(sorted({name for score in self._newest.values() for name in score.metrics}))

    def mean(self, metric: str, *, quorum: int) -> float | None:
        """Return the mean of a metric over sites, weighted by num_examples; None below `quorum` sites.

        A site that does not report the metric, or reports NaN or infinity, does not count; see `broken`.
        """
        found = self._reported(metric)
        return mean_of(found) if found and len(found) >= quorum else None

    def lacks_reporters(self, metric: str, *, quorum: int) -> bool:
        """Whether enough sites have a score, and too few of them one with this metric, for its mean to exist."""
        return len(self._newest) >= quorum > len(self._reported(metric))

    def means_without_one(self, metric: str) -> list[float]:
        """Return the mean once more without each site in turn; none below three sites that report the metric."""
        found = self._reported(metric)
        return [mean_of([*found[:i], *found[i + 1 :]]) for i in range(len(found))] if len(found) > 2 else []

    def _reported(self, metric: str) -> list[tuple[int, float]]:
        return reported(self._newest.values(), metric)


def reported(scores: Iterable[Score], metric: str) -> list[tuple[int, float]]:
    """Return (examples, value) of the scores that have the metric and were measured on any example."""
    found = (score for score in scores if metric in score.metrics and score.num_examples > 0)
    return [(score.num_examples, score.metrics[metric]) for score in found]


def means_of(scores: Collection[Score]) -> dict[str, float]:
    """Return the mean of every metric over the scores that have it, in order of names."""
    found = {name: reported(scores, name) for name in sorted({name for score in scores for name in score.metrics})}
    return {name: mean_of(values) for name, values in found.items() if values}


def mean_of(found: Sequence[tuple[int, float]]) -> float:
    """Return the mean of (examples >= 1, value), at least one, as `bounded` has them."""
    counted = bounded(found)
    total = sum(examples for examples, _ in counted)
    return math.fsum(examples / total * value for examples, value in counted)


def bounded(found: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return (examples, value) as they count; from three on each is bounded by the others, see the module.

    A value is in proportion up to OUT_OF_PROPORTION times the others' range, or size, beyond their range.
    """
    if len(found) < 3:
        return list(found)
    whole = sum(examples for examples, _ in found)
    return [
        (min(examples, whole - examples), min(max(value, low), high))
        for (examples, value), (low, high) in zip(found, in_proportion([value for _, value in found]), strict=True)
    ]


def in_proportion(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return for each of the values what is in proportion to the others; below three everything is."""
    if len(values) < 3:
        return [(-math.inf, math.inf)] * len(values)
    lowest, next_lowest, *_ = sorted(values)
    *_, next_highest, highest = sorted(values)
    limits = []
    for value in values:
        low = next_lowest if value == lowest else lowest
        high = next_highest if value == highest else highest
        beyond = max(OUT_OF_PROPORTION * max(high - low, abs(low), abs(high)), 1.0)
        limits.append((low - beyond, high + beyond))
    return limits


class Trend:
    """The course of one mean over versions: which version was best, and how many came after it without being better.

    While the sites score the newest version its mean still moves, up or down; it counts as it stands.
    """

    def __init__(self, better: Better) -> None:
        self._better = better
        self._newest: tuple[int, float] | None = None
        self._best_before: tuple[int, float] | None = None
        self._since_before = 0

    def add(self, version: int, mean: float | None) -> None:
        """Set the point of the newest version; points of older versions are ignored. None: it is worse than any."""
        if mean is None:
            mean = -math.inf if self._better == "higher" else math.inf
        if self._newest is not None and version < self._newest[0]:
            return
        if self._newest is not None and version > self._newest[0]:
            self._since_before = self.since_best
            self._best_before = self.best
        self._newest = (version, mean)

    @property
    def newest(self) -> tuple[int, float | None] | None:
        """The newest point, as `add` takes it; None without points."""
        if self._newest is None:
            return None
        version, mean = self._newest
        return version, mean if math.isfinite(mean) else None

    @property
    def best(self) -> tuple[int, float] | None:
        """The best version and its mean, the earlier one of equals; None without points that are good for anything."""
        best = self._newest if self._newest_is_best() else self._best_before
        return best if best is not None and math.isfinite(best[1]) else None

    @property
    def candidates(self) -> frozenset[int]:
        """Versions that are the best or may be, once the mean of the newest has moved."""
        return frozenset(point[0] for point in (self._newest, self._best_before) if point is not None)

    @property
    def since_best(self) -> int:
        """Number of points after the best one."""
        return 0 if self._newest is None or self._newest_is_best() else self._since_before + 1

    def _newest_is_best(self) -> bool:
        if self._newest is None or self._best_before is None:
            return True
        new, old = self._newest[1], self._best_before[1]
        return new > old if self._better == "higher" else new < old
