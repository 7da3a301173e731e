"""The scores of a job: what its sites measured of the versions, and the mean over sites that stop rules look at.

What lives here: one number per metric from many sites. What may not: when to stop (see `job`).

Sites are unequally fast and skip versions, so hardly any version is ever scored by all of them; a mean over those that
did score it would mostly be one over the fast sites. The mean here is that of each site's *newest* score, weighted by
num_examples; a version is scored when a site scores it and this mean exists. It lags by the slowest site, which is the
safe side for a stop rule. It exists once `quorum` sites have a score that counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One site's newest evaluation."""

    version: int
    metrics: Mapping[str, float]
    num_examples: int


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

    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics that any site reports."""
        return tuple(sorted({name for score in self._newest.values() for name in score.metrics}))

    def mean(self, metric: str, *, quorum: int) -> float | None:
        """Return the mean of a metric over sites, weighted by num_examples; None below `quorum` sites.

        A site that does not report the metric, or reports NaN or infinity, does not count.
        """
        found = [
            (score.num_examples, score.metrics[metric])
            for score in self._newest.values()
            if math.isfinite(score.metrics.get(metric, math.nan))
        ]
        if not found or len(found) < quorum:
            return None
        total = sum(examples for examples, _ in found)
        return math.fsum(examples / total * value for examples, value in found)


class Trend:
    """The course of one mean over versions: which version was best, and how many came after it without being better.

    While the sites score the newest version its mean still moves, up or down; it counts as it stands.
    """

    def __init__(self, better: Better) -> None:
        self._better = better
        self._newest: tuple[int, float] | None = None
        self._best_before: tuple[int, float] | None = None
        self._since_before = 0

    def add(self, version: int, mean: float) -> None:
        """Set the point of the newest version; points of older versions are ignored."""
        if self._newest is not None and version < self._newest[0]:
            return
        if self._newest is not None and version > self._newest[0]:
            self._since_before = self.since_best
            self._best_before = self.best
        self._newest = (version, mean)

    @property
    def best(self) -> tuple[int, float] | None:
        """The best version and its mean, the earlier one of equals; None without points."""
        return self._newest if self._newest_is_best() else self._best_before

    @property
    def since_best(self) -> int:
        """Number of points after the best one."""
        return 0 if self._newest is None or self._newest_is_best() else self._since_before + 1

    def _newest_is_best(self) -> bool:
        if self._newest is None or self._best_before is None:
            return True
        new, old = self._newest[1], self._best_before[1]
        return new > old if self._better == "higher" else new < old
