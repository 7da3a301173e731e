"""How far a site's clock is from the aggregator's, for people: no decision hangs on it.

    what its status says was the time - our time when it came = ahead - travel,   travel ≥ 0

so the largest of the last few is nearest to what the site's clock is ahead: the one that travelled least. A site whose
messages all take seconds looks as much behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RECENT = 8
# A status that waited while the aggregator was away says nothing; of so many in a row one did not.
ENOUGH = 3
MUCH_S = 5.0
YEAR_3000_S = 32_503_680_000.0


@dataclass(frozen=True, slots=True)
class Skew:
    """Of one session of a site: seconds that the newest statuses seemed to be ahead."""

    seen: tuple[float, ...] = ()

    def after(self, said_at: float, *, now: float) -> Skew:
        """With one more status, that came at `now` of our clock; one that says no time changes nothing."""
        return Skew((*self.seen, said_at - now)[-RECENT:]) if 0.0 < said_at < YEAR_3000_S else self

    @property
    def ahead_s(self) -> float | None:
        """Seconds the site's clock is ahead, negative when it is behind; None when that is not known."""
        return max(self.seen) if len(self.seen) >= ENOUGH else None

    @property
    def much_s(self) -> float | None:
        """The same, None also when it is no more than people's clocks differ anyway."""
        ahead_s = self.ahead_s
        return ahead_s if ahead_s is not None and math.fabs(ahead_s) > MUCH_S else None
