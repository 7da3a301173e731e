"""Lines of a daemon's logins at the broker: each that was let in, and refusals, which come again with every try."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from fedbus.audit.writer import Audit
from fedbus.bus.connection import LinkState, OnState
from fedbus.store.audit_kinds import Kind

AGAIN_S = 3600.0


class Logins:
    """Of one session, to which `on_state` is given; `also` is told as well. `facts` stand in each line."""

    def __init__(
        self,
        audit: Audit,
        session: str,
        facts: Mapping[str, object],
        *,
        also: OnState | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audit = audit
        self._facts = {"session": session, **facts}
        self._also = also
        self._clock = clock
        self._in = False
        self._refused_at: float | None = None
        self._refusals = 0

    def on_state(self, state: LinkState, words: str) -> None:
        """Note what it means for the login."""
        match state:
            case LinkState.CONNECTED if not self._in:
                self._in, self._refused_at = True, None
                self._audit.note(Kind.BROKER_LOGIN, **self._facts)
            case LinkState.REFUSED:
                self._in = False
                self._refused(words)
            case LinkState.LOST | LinkState.UNREACHABLE:
                self._in = False
            case LinkState.CONNECTED | LinkState.BLOCKED:
                pass  # an alarm of the broker began or ended
        if self._also is not None:
            self._also(state, words)

    def _refused(self, words: str) -> None:
        self._refusals += 1
        now = self._clock()
        if self._refused_at is None or now - self._refused_at >= AGAIN_S:
            self._audit.note(Kind.BROKER_REFUSED, **self._facts, reason=words, times=self._refusals)
            self._refused_at, self._refusals = now, 0
