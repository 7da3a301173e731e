"""What the page knows: one connection to the bus, one reader of the events for all jobs, a picture of each job.

Whoever looks waits with `moved`, which answers a few times a second at most, however much happens and however many
look. Pictures are bounded, and only those of the jobs that were last heard of are kept. An outage of the broker, a
refused login and a silent aggregator are a `Trouble` that stands on the page until it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog

from fedbus.bus.connection import LinkState
from fedbus.console.client import Client
from fedbus.console.picture import Picture
from fedbus.console.settings import SubmitterSettings
from fedbus.core.protocol import answers as a
from fedbus.core.protocol.events import NOBODY
from fedbus.core.protocol.messages import Event
from fedbus.errors import FedbusError, NoAnswerError
from fedbus.runtime.printable import printable

MOST_PICTURES = 32
MOST_PAST = 150_000
"""Of events before the page started no more are read; each costs about a third of a millisecond."""
BACK_S = 86_400.0
"""Of jobs that have ended the events of the last day are read again, of those that have not all that are there."""
BEAT_S = 0.25
ANSWER_S = 5.0
AGAIN_S = 2.0
TURN = 200
"""After so many events others get their turn."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is not there, in words, and since when, in seconds since the epoch."""

    what: str
    since: float
    reason: str = ""


class Feed:
    """`run` keeps it up to date until it is cancelled; everything else answers at once.

    reading: how many events of the past have come, while they come; None afterwards. generation: of the pictures: they
    begin anew when the events are read anew.
    """

    def __init__(self, settings: SubmitterSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings.model_copy(update={"timeout_s": min(ANSWER_S, settings.timeout_s)})
        self._clock = clock
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._changed = asyncio.Event()
        self._beat: asyncio.Future[None] | None = None
        self._client: Client | None = None
        self._broker: Trouble | None = Trouble(what="the broker is not reached yet", since=clock())
        self._aggregator: Trouble | None = None
        self.reading: int | None = 0
        self.generation = 0
        self.may_submit = False
        self.closed = False

    # what is known

    @property
    def trouble(self) -> Trouble | None:
        """Why what is shown may be old; the broker's outage hides the aggregator's."""
        return self._broker or self._aggregator

    @property
    def client(self) -> Client:
        """The connection. Raises NoAnswerError with the trouble while the broker is away."""
        if self._client is None or self._broker is not None:
            trouble = self._broker
            raise NoAnswerError("the page has no link to the broker" if trouble is None else trouble.what)
        return self._client

    def picture(self, job: str) -> Picture | None:
        """What events have said of a job; None when they have said nothing that is known here."""
        return self._pictures.get(job)

    async def moved(self, *, within_s: float) -> None:
        """Return soon after something has changed, and at the latest after so many seconds."""
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._beat], timeout=within_s)

    def close(self) -> None:
        """Whoever looks is let go."""
        self.closed = True
        self._wake()

    def answered(self, why_not: FedbusError | None) -> None:
        """The aggregator has answered, or has not; while the broker is away it cannot."""
        if why_not is not None and self._broker is not None:
            return
        if why_not is None:
            was, self._aggregator = self._aggregator, None
        else:
            was = self._aggregator
            self._aggregator = was or Trouble(
                what="the aggregator does not answer", since=self._clock(), reason=printable(str(why_not))
            )
        if (was is None) is not (why_not is None):
            self._changed.set()

    # how it comes to be known

    async def run(self) -> None:
        """Follow what happens, for ever."""
        async with Client(self._settings, on_state=self._on_state) as client, asyncio.TaskGroup() as group:
            self._client = client
            group.create_task(self._tick(), name="page: beat")
            group.create_task(self._follow_for_ever(client), name="page: events")

    def _on_state(self, state: LinkState, words: str) -> None:
        was = self._broker
        since = self._clock() if was is None else was.since
        match state:
            case LinkState.CONNECTED:
                self._broker = None
            case LinkState.REFUSED:
                self._broker = Trouble(what="the broker refuses this page's login", since=since, reason=words)
            case LinkState.LOST | LinkState.UNREACHABLE:
                self._broker = Trouble(what="the broker cannot be reached", since=since, reason=words)
            case LinkState.BLOCKED:
                log.warning("page-broker-blocked", text=words)
        if (was is None) is not (self._broker is None):
            log.info("page-broker", text="reached" if self._broker is None else f"{self._broker.what}: {words}")
        self._changed.set()

    async def _tick(self) -> None:
        """Wake those who wait, at most once in BEAT_S."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._wake()
            await asyncio.sleep(BEAT_S)

    def _wake(self) -> None:
        if self._beat is not None and not self._beat.done():
            self._beat.set_result(None)

    async def _follow_for_ever(self, client: Client) -> None:
        """A stream that is not there yet, or no more, comes when an aggregator starts."""
        while True:
            try:
                self.may_submit = await client.may_submit()
                await self._follow(client)
            except NoAnswerError as exc:
                self.answered(exc)
            except FedbusError as exc:
                log.debug("page-events", reason=str(exc))
            await asyncio.sleep(AGAIN_S)

    async def _follow(self, client: Client) -> None:
        since = oldest_of_interest(await client.jobs(), now=self._clock())
        self.answered(None)
        self._pictures.clear()
        self.generation += 1
        self.reading = count = 0
        async with aclosing(client.all_events(since=since, most=MOST_PAST)) as events:
            async for event in events:
                if event is None:
                    self.reading = None
                else:
                    self.take(event)
                count += 1
                if self.reading is not None:
                    self.reading = count
                if count % TURN == 0:
                    await asyncio.sleep(0)

    def take(self, event: Event) -> None:
        """Take in one event."""
        if event.job == NOBODY:
            return
        picture = self._pictures.get(event.job)
        if picture is None:
            picture = self._pictures[event.job] = Picture(job=event.job)
        picture.take(event)
        self._pictures.move_to_end(event.job)
        while len(self._pictures) > MOST_PICTURES:
            self._pictures.popitem(last=False)
        self._changed.set()


def oldest_of_interest(jobs: list[a.JobLine], *, now: float) -> float:
    """From when on events are wanted: the submission of the oldest job that goes on, or has ended a short time ago."""
    wanted = [job for job in jobs if job.ended_at is None or job.ended_at > now - BACK_S]
    submitted = [job.submitted_at for job in wanted[-MOST_PICTURES:] if job.submitted_at is not None]
    return min(submitted, default=now) - 60.0


def as_told(trouble: Trouble | None) -> dict[str, Any] | None:
    """A trouble for programs."""
    return None if trouble is None else {"what": trouble.what, "since": trouble.since, "reason": trouble.reason}
