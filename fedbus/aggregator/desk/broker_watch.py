"""What the broker did to this aggregator, said to the people who watch its jobs: outages, and alarms that block.

The session itself keeps the link up and logs every change at once. While the link is down or blocked nothing can be
published, so the events come when it is over, with how long it took. Before they come, what every federation has is
declared again: the broker may have come back with an empty disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from fedbus.aggregator.job.jobs import Jobs
from fedbus.aggregator.voice.announcer import Announcer
from fedbus.bus.connection import LinkState
from fedbus.core.job.status_text import span
from fedbus.core.protocol import events


class BrokerWatch:
    """`on_state` goes to the session; `run` tells."""

    def __init__(self) -> None:
        self._down_since: float | None = None
        self._blocked_since: float | None = None
        self._over: asyncio.Queue[events.BrokerBack | events.BrokerUnblocked] = asyncio.Queue()

    def on_state(self, state: LinkState, words: str) -> None:
        """A session changed. Called in the event loop."""
        now = time.monotonic()
        match state:
            case LinkState.LOST:
                self._down_since = now
            case LinkState.BLOCKED:
                self._blocked_since = now
            case LinkState.CONNECTED:
                self._connected(now)
            case LinkState.UNREACHABLE | LinkState.REFUSED:
                pass  # still down

    def _connected(self, now: float) -> None:
        if self._down_since is not None:
            self._over.put_nowait(events.BrokerBack(away=span(now - self._down_since)))
        elif self._blocked_since is not None:
            self._over.put_nowait(events.BrokerUnblocked(blocked=span(now - self._blocked_since)))
        self._down_since = self._blocked_since = None

    async def run(self, jobs: Jobs, announcer: Announcer, *, declare: Callable[[], Awaitable[None]]) -> None:
        """Tell every running job, for ever; `declare` brings back what a broker with an empty disk lacks."""
        while True:
            happened = await self._over.get()
            if isinstance(happened, events.BrokerBack):
                await declare()
            for job in list(jobs.runners) or [events.NOBODY]:
                await announcer.event(job, happened)
