"""How much work one login may make for all: a bucket of tokens for each, filled at a steady rate.

    read      messages that are read at all; those beyond are acknowledged unread
    work      what a message sets off for others, in publishes: an event is 1, one that is kept on disk KEPT, and so on

A site that behaves meets neither: the limits are several times what the busiest of ours sets off. Whoever meets one is
told of to people once and then every TELL_AGAIN_S, with the number of its messages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

READ_RATE, READ_BURST = 200.0, 2000.0
WORK_RATE, WORK_BURST = 50.0, 500.0
EVENT, KEPT = 1.0, 10.0
TELL_AGAIN_S = 60.0


@dataclass(slots=True, kw_only=True)
class Bucket:
    """Holds up to `burst` tokens, full at first; `rate` come back each second. Times are seconds on one clock."""

    rate: float
    burst: float
    at: float
    tokens: float

    def take(self, cost: float, *, now: float) -> bool:
        """Whether there was enough. What costs more than ever fits costs a full bucket."""
        self.tokens = min(self.burst, self.tokens + self.rate * max(0.0, now - self.at))
        self.at = now
        cost = min(cost, self.burst)
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True


class Allowance:
    """Buckets by login; there are no more logins than the broker has."""

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, Bucket] = {}
        self._beyond: Counter[str] = Counter()
        self._told_at: dict[str, float] = {}

    def take(self, login: str, cost: float = 1.0, *, now: float, counted: bool = True) -> bool:
        """Whether the login may have this done now; what it may not is counted."""
        bucket = self._buckets.get(login)
        if bucket is None:
            bucket = self._buckets[login] = Bucket(rate=self._rate, burst=self._burst, at=now, tokens=self._burst)
        allowed = bucket.take(cost, now=now)
        self._beyond[login] += counted and not allowed
        return allowed

    def to_tell(self, *, now: float) -> dict[str, int]:
        """How often each login was beyond its allowance since that was last told; empty most of the time."""
        found = {
            login: times
            for login, times in self._beyond.items()
            if times and now - self._told_at.get(login, -TELL_AGAIN_S) >= TELL_AGAIN_S
        }
        for login in found:
            self._told_at[login] = now
            del self._beyond[login]
        return found
