"""When a snapshot is published because sites ask for one: rarely, however many ask and however often.

A site that comes and may not read earlier versions needs one, too. A snapshot serves every site of the job. One is made
at most every PAUSE_S, and one site can have BURST made at once and then one every REFILL_S. A site that reads a backlog
asks with each version until the snapshot comes: while one is wanted, asking costs it nothing.
"""

from __future__ import annotations

import math

from fedbus.aggregator.incoming.allowance import Allowance

PAUSE_S = 5.0
BURST = 3.0
REFILL_S = 60.0


class Resyncs:
    """Of one job. Times are seconds on one clock."""

    def __init__(self) -> None:
        self._wanted = False
        self._made_at = -math.inf
        self._allowance = Allowance(rate=1.0 / REFILL_S, burst=BURST)

    def ask(self, site: str, *, now: float) -> bool:
        """A site asks; True when a snapshot is wanted because of it, and was not before."""
        if self._wanted or not self._allowance.take(site, now=now):
            return False
        self._wanted = True
        return True

    def due(self, *, now: float) -> bool:
        """Whether a snapshot is to be published now; it counts as made then."""
        if not self._wanted or now - self._made_at < PAUSE_S:
            return False
        self._wanted, self._made_at = False, now
        return True

    def to_tell(self, *, now: float) -> dict[str, int]:
        """How often each site asked in vain since that was last told."""
        return self._allowance.to_tell(now=now)
