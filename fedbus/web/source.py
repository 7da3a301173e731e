"""Answers of the aggregator, remembered for a moment: however many look, it is asked once a second for each thing.

While it does not answer, what it said last is given again, and the feed's `trouble` says since when.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from fedbus.console.client import Client
from fedbus.console.fetch import AskedInVainError
from fedbus.core.protocol import answers as a
from fedbus.core.spec.head import JobSpec
from fedbus.errors import BusError, FedbusError
from fedbus.web.feed import Feed

A = TypeVar("A")
FRESH_S = 1.0
FRESH_HISTORY_S = 10.0
AGAIN_S = 2.0
"""After no answer the next question waits so long."""
MOST_REMEMBERED = 128


@dataclass(slots=True)
class _Remembered:
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: Any = None
    known: bool = False
    fresh_until: float = 0.0
    why_not: FedbusError | None = None


class Answers:
    """What the pages ask; see `pages.seam.Source`."""

    def __init__(self, feed: Feed, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._feed = feed
        self._clock = clock
        self._known: OrderedDict[str, _Remembered] = OrderedDict()

    async def jobs(self) -> list[a.JobLine]:
        """All jobs, oldest first."""
        return await self._answer("jobs", lambda client: client.jobs())

    async def job(self, job: str) -> a.JobDetail:
        """One job. Raises AskedInVainError when there is none of that id."""
        return await self._answer(f"job {job}", lambda client: client.job(job))

    async def sites(self) -> list[a.SiteLine]:
        """All sites."""
        return await self._answer("sites", lambda client: client.sites())

    async def history(self, job: str) -> list[a.VersionLine]:
        """One line a version."""
        return await self._answer(f"history {job}", lambda client: client.history(job), fresh_s=FRESH_HISTORY_S)

    async def what_left(self) -> a.AuditHeads:
        """The newest heads of the sites' audit logs, and what came from the sites."""
        return await self._answer("what left", lambda client: client.what_left(), fresh_s=FRESH_HISTORY_S)

    async def submit(self, spec: JobSpec, *, note: Callable[[str], object]) -> str:
        """Submit a job; its id. Raises JobSpecError when it is refused."""
        job = await self._feed.client.submit(spec, note=note)
        self._known.pop("jobs", None)
        return job

    async def abort(self, job: str, reason: str | None) -> None:
        """End a job. Raises AskedInVainError when there is none of that id."""
        await self._feed.client.abort(job, reason)
        self._known.pop(f"job {job}", None)

    async def _answer(self, what: str, ask: Callable[[Client], Awaitable[A]], *, fresh_s: float = FRESH_S) -> A:
        found = self._known.setdefault(what, _Remembered())
        self._known.move_to_end(what)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        async with found.asking:
            if self._clock() >= found.fresh_until:
                await self._ask(found, ask, fresh_s)
        if found.why_not is not None and not found.known:
            raise found.why_not
        return cast("A", found.answer)

    async def _ask(self, found: _Remembered, ask: Callable[[Client], Awaitable[A]], fresh_s: float) -> None:
        """Nobody waits for an answer that did not come a moment ago while there is an older one."""
        try:
            found.answer, found.known, found.why_not = await ask(self._feed.client), True, None
            self._feed.answered(None)
        except AskedInVainError as exc:
            found.known, found.why_not = False, exc
            self._feed.answered(None)
        except BusError as exc:
            found.why_not, fresh_s = exc, AGAIN_S
            self._feed.answered(exc)
        found.fresh_until = self._clock() + fresh_s
