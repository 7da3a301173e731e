"""Answers of the aggregator, remembered for a moment: however many look, it is asked once a second for each thing.

What is known is given at once, and asked anew behind it; so nobody waits for an aggregator that is away. What it said
last is given then, and the feed's `trouble` says since when.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from fedbus.console.client import Client
from fedbus.console.fetch import AskedInVainError
from fedbus.core.protocol import answers as a
from fedbus.core.spec.head import JobSpec
from fedbus.errors import FedbusError
from fedbus.web.feed import Feed

A = TypeVar("A")
FRESH_S = 1.0
FRESH_HISTORY_S = 10.0
OLD_S = 4.0
"""An answer that is older is waited for, unless nobody answers."""
AGAIN_S = 2.0
"""After no answer the next question waits so long."""
MOST_REMEMBERED = 128


Ask = Callable[[Client], Awaitable[A]]


@dataclass(slots=True)
class _Remembered:
    """An answer; `why_not` is what the last question came to, `known` whether there is an answer all the same."""

    answer: Any = None
    known: bool = False
    answered_at: float = -math.inf
    fresh_until: float = -math.inf
    why_not: FedbusError | None = None
    asking: asyncio.Task[None] | None = None


class Answers:
    """What the pages ask; see `pages.seam.Source`. `tasks` owns the questions that are under way."""

    def __init__(self, feed: Feed, tasks: asyncio.TaskGroup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._feed = feed
        self._tasks = tasks
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

    def close(self) -> None:
        """Ask nothing any more."""
        for found in self._known.values():
            if found.asking is not None:
                found.asking.cancel()

    async def _answer(self, what: str, ask: Ask[A], *, fresh_s: float = FRESH_S) -> A:
        """What is known of it. It is waited for where nothing is, or what is known is old and an answer may come."""
        found = self._known.setdefault(what, _Remembered())
        self._known.move_to_end(what)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        now = self._clock()
        if now >= found.fresh_until and (found.asking is None or found.asking.done()):
            found.asking = self._tasks.create_task(self._ask(found, ask, fresh_s), name=f"page: {what}")
        old = now > found.answered_at + OLD_S and self._feed.trouble is None
        if found.asking is not None and not found.asking.done() and (old or not found.known):
            await asyncio.wait([found.asking])
        if found.why_not is not None and not found.known:
            raise found.why_not
        return cast("A", found.answer)

    async def _ask(self, found: _Remembered, ask: Ask[A], fresh_s: float) -> None:
        try:
            answer = await ask(self._feed.client)
            found.answer, found.known, found.why_not = answer, True, None
            found.answered_at = self._clock()
            self._feed.answered(None)
        except AskedInVainError as exc:
            found.known, found.why_not = False, exc
            self._feed.answered(None)
        except FedbusError as exc:
            found.why_not, fresh_s = exc, AGAIN_S
            self._feed.answered(exc)
        found.fresh_until = self._clock() + fresh_s
