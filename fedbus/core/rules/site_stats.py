"""What the aggregation remembers about one site: counts, staleness, recent norms, period.

What lives here: numbers that follow from the facts about one site. What may not: whether it is online (`membership`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

from fedbus.core.rules.facts import Folded

KEEP = 0.8
"""Share of the old value in a running mean; the new value has the rest."""
RECENT = 5
"""So many norms and gaps are remembered for a site's own medians."""
KEEP_SECANT = 0.6
"""The same for travel and response: a secant of the way gone lately."""
MOST_SECANT = 4.0
"""A training that does not swing says at most 1; one that swings says more, and how much more is soon all the same."""
SILENT = 4
"""What a site sent is forgotten once SILENT * N versions were made without it, unless it always takes so long."""
OVERDUE = 2.0
"""It takes so long when it has not been silent for OVERDUE of its own periods."""
ENOUGH = 3
"""So many norms make a median that may clip."""
MAX_NORM = 1e12
"""No delta is longer, and `peers` bounds it long before: with the largest weights of a job, sums and their squares
stay far from float32's end."""
MOST_TIMES = 1e6
"""A delta this many times longer than the site's own median is no step of training but a fault."""
SMALL_NORM = 1e-3
"""A median below counts as this: a site that began with next to nothing may still learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStats:
    """Numbers about one site in one job.

    running_staleness: running mean, newest update included; None before the first. norms: of the last `RECENT` deltas
    as they were folded, after clipping, so that a site's median grows by at most the clip factor per update.
    gaps: seconds between the last updates, at most `RECENT`. last_at, last_version: when the last update came, and at
    which version of the model. num_examples: of the last update; 0 before the first. travel, response: running means of
    what its updates said of them, see `tensors.secant`. trained_s, waited_s: sums, of training and of waiting for data.
    """

    folded: int = 0
    refused: int = 0
    staleness_sum: int = 0
    running_staleness: float | None = None
    norms: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()
    last_at: float | None = None
    last_version: int = 0
    num_examples: int = 0
    travel: float = 0.0
    response: float = 0.0
    trained_s: float = 0.0
    waited_s: float = 0.0

    @property
    def data_wait(self) -> float:
        """Share of its training in which a step waited for its examples, in [0, 1]."""
        return min(self.waited_s / self.trained_s, 1.0) if self.trained_s > 0.0 else 0.0

    @property
    def mean_staleness(self) -> float:
        """Plain average over all folded updates, 0 when there are none."""
        return self.staleness_sum / self.folded if self.folded else 0.0

    @property
    def period_s(self) -> float | None:
        """Median time between two of the last updates, which one outage does not move; None before the second."""
        return median(self.gaps) if self.gaps else None

    @property
    def usual_norm(self) -> float | None:
        """Median of the recent norms; None before the first."""
        return median(self.norms) if self.norms else None

    @property
    def secant(self) -> float | None:
        """Return response / travel in [0, MOST_SECANT]: how much less it asks for per distance that the model came."""
        return min(max(self.response / self.travel, 0.0), MOST_SECANT) if self.travel > 0.0 else None

    def is_overdue(self, *, now: float) -> bool:
        """Whether its last update is longer ago than OVERDUE of its periods; without a measured period it always is."""
        if self.last_at is None or self.period_s is None:
            return True
        return not 0.0 <= now - self.last_at < OVERDUE * self.period_s

    def staleness_with(self, staleness: int) -> float:
        """Return the running mean as it will be when an update of this staleness is counted in."""
        return _running(self.running_staleness, staleness)

    def clip(self, norm: float, *, factor: float | None) -> float:
        """Return what scales a delta of this norm down to `factor` times the site's own median norm, in [0, 1].

        1 without a factor, and while fewer than `ENOUGH` norms are known. The median is the site's own on purpose:
        sites with rare cases send longer deltas, and a median over all sites would starve them.
        """
        if factor is None or len(self.norms) < ENOUGH:
            return 1.0
        bound = factor * median(self.norms)
        return bound / norm if 0.0 < bound < norm else 1.0

    def longest(self) -> float:
        """Return the norm above which a delta of this site is refused, clipping or not.

        The direction of such a delta means nothing either, so scaling it down would fold noise. Refused norms do not
        move the median.
        """
        if len(self.norms) < ENOUGH:
            return MAX_NORM
        return min(MAX_NORM, MOST_TIMES * max(median(self.norms), SMALL_NORM))

    def with_folded(self, fact: Folded) -> SiteStats:
        """Return the numbers after one more folded update."""
        # a clock that begins anew with the machine has told no gap
        gap = () if self.last_at is None or fact.at < self.last_at else (fact.at - self.last_at,)
        travel, response = fact.effort.travel, fact.effort.response
        known = travel > 0.0
        first = self.travel == 0.0
        return replace(
            self,
            folded=self.folded + 1,
            staleness_sum=self.staleness_sum + fact.staleness,
            running_staleness=self.staleness_with(fact.staleness),
            norms=(*self.norms, fact.norm * fact.clip)[-RECENT:],
            gaps=(*self.gaps, *gap)[-RECENT:],
            last_at=fact.at,
            last_version=fact.base_version + fact.staleness,
            num_examples=fact.num_examples,
            trained_s=self.trained_s + fact.effort.seconds,
            waited_s=self.waited_s + fact.effort.data_wait_s,
            travel=_running(None if first else self.travel, travel, keep=KEEP_SECANT) if known else self.travel,
            response=_running(None if first else self.response, response, keep=KEEP_SECANT) if known else self.response,
        )

    def with_refused(self) -> SiteStats:
        """Return the numbers after one more refused update."""
        return replace(self, refused=self.refused + 1)


def _running(old: float | None, new: float, *, keep: float = KEEP) -> float:
    return float(new) if old is None else keep * old + (1.0 - keep) * new
