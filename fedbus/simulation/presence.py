"""When a site is there: it joins, goes, comes back, leaves.

What lives here: times. What may not: what a site that is away does with its update (see `loop`).

A churning site is there for an exponential time of mean MEAN_STAY periods of the slowest site, then away for an
exponential time whose mean makes its share of time away what was asked for; it begins in either by that share.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from fedbus.errors import SettingsError

MEAN_STAY = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A site's times in virtual seconds. `away_share` in [0, 1) is the churn; `period_s` what it is measured in."""

    joins_at: float = 0.0
    leaves_at: float = math.inf
    away_share: float = 0.0
    period_s: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.away_share < 1.0 and 0.0 <= self.joins_at < self.leaves_at and self.period_s > 0.0):
            raise SettingsError(f"expected 0 <= churn < 1 and a site that joins before it leaves, got {self}")

    def changes(self, rng: random.Random) -> Iterator[tuple[float, bool]]:
        """Yield (time, there from then on), alternating, beginning with the first time that it is there."""
        at = self.joins_at
        stay_s = MEAN_STAY * self.period_s
        away_s = stay_s * self.away_share / (1.0 - self.away_share)
        if away_s and rng.random() < self.away_share:
            at += rng.expovariate(1.0 / away_s)
        while at < self.leaves_at:
            yield at, True
            at = at + rng.expovariate(1.0 / stay_s) if away_s else math.inf
            yield min(at, self.leaves_at), False
            at = at + rng.expovariate(1.0 / away_s) if away_s else math.inf
