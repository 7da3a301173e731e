"""How far a site's clock is from the aggregator's, for people: no decision hangs on it.

    what its status says was the time - our time when it came = ahead - travel,   travel ≥ 0

so the largest of the last few is nearest to what the site's clock is ahead: the one that travelled least. A site whose
messages all take seconds looks as much behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RECENT = 8
# Statuses that waited while the aggregator was away or busy say nothing, and come all at once: of so many that came
# over so many seconds one did not wait.
ENOUGH = 3
SPAN_S = 2.0
MUCH_S = 5.0
YEAR_3000_S = 32_503_680_000.0


@dataclass(frozen=True, slots=True)
class Skew:
    """Of one session of a site: seconds that the newest statuses seemed to be ahead, and when each came."""

    seen: tuple[tuple[float, float], ...] = ()

    def after(self, said_at: float, *, now: float) -> Skew:
        """With one more status, that came at `now` of our clock; one that says no time changes nothing."""
        return Skew((*self.seen, (said_at - now, now))[-RECENT:]) if 0.0 < said_at < YEAR_3000_S else self

    @property
    def ahead_s(self) -> float | None:
        """Seconds the site's clock is ahead, negative when it is behind; None when that is not known."""
        if len(self.seen) < ENOUGH or self.seen[-1][1] - self.seen[0][1] < SPAN_S:
            return None
        return max(ahead_s for ahead_s, _ in self.seen)

    @property
    def much_s(self) -> float | None:
        """The same, None also when it is no more than people's clocks differ anyway."""
        ahead_s = self.ahead_s
        return ahead_s if ahead_s is not None and math.fabs(ahead_s) > MUCH_S else None
