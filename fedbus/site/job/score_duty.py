"""What a site owes in scores: which version was asked for, until when, and what became of it. Decisions, no I/O."""

from __future__ import annotations

from fedbus.core.protocol import messages as m
from fedbus.training.sayable import Sayable


class ScoreDuty:
    """`wanted` is the version that is asked for at the end of a job; None when none is owed. `request`: how.

    by: when it is given up, in the event loop's seconds. newest: the newest version that was scored or given up.
    cannot: why no version can be scored here; None as long as it may be tried.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.wanted: int | None = None
        self.request: m.ScoreRequest | None = None
        self.by: float | None = None
        self.newest = -1
        self.cannot: Sayable | None = None

    def ask(self, request: m.ScoreRequest, *, now: float) -> None:
        """A version is asked for; asking again gives no more time."""
        if request.version != self.wanted:
            self.by = now + self.limit_s
        self.wanted, self.request = request.version, request

    def done(self, version: int, request: m.ScoreRequest | None) -> None:
        """A version was scored or given up, as `request` asks; None: for nobody.

        What was asked for meanwhile is still owed, also of the same version: a score may lack what it asks for.
        """
        self.newest = max(self.newest, version)
        if self.wanted is not None and self.wanted <= version and request is not None:
            self.wanted = self.request = self.by = None
