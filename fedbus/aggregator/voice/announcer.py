"""What the aggregator says: control messages to sites, events to watchers, log lines to its own operator.

Saying never holds up folding: messages wait in bounded queues, each published in order on the control connection, up to
UNCONFIRMED of a lane before the first is confirmed (see `bus.in_order`), but to one site never more than one. There is
one lane for each kind of message, so that none waits behind another kind:

    orders     what a job tells its sites: offers, starts, receipts, the end. A site hears of one job in order
    events     for watchers
    answers    to a site that asks about what is over, or says again what was decided: at most MOST_ANSWERS wait for one
               site, so that a site which asks without end takes none of another's
    dead       what breaks the protocol, see `dead_letters`
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

import structlog

from fedbus.aggregator import audit as audit_lines
from fedbus.aggregator.voice import counting
from fedbus.aggregator.voice.dead_letters import DeadLetters
from fedbus.audit.writer import Audit, NoAudit
from fedbus.bus.consumer import Delivery
from fedbus.bus.envelope import Envelope
from fedbus.bus.in_order import InOrder
from fedbus.bus.post import ControlMessage, Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import EVENTS, control_key_all
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.runtime.metrics import Metrics, NoMetrics

WAITING_MESSAGES = 10_000
UNCONFIRMED = 16
MOST_ANSWERS = 200

log = structlog.get_logger()

Lane = asyncio.Queue[Envelope | asyncio.Event]
"""Messages in order; an event is set when all before it are published."""


class Announcer:
    """Run `run` as a task; everything else only queues. `keep` makes incidents durable, `dead` what is refused.

    `audit` gets a line of each event that an audit log tells of, `metrics` counts.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        post: Post,
        dead: Publisher,
        keep: Callable[[m.Event], Awaitable[None]],
        audit: Audit | None = None,
        metrics: Metrics | None = None,
        unconfirmed: int = UNCONFIRMED,
    ) -> None:
        self._publisher = publisher
        self._post = post
        self._audit = audit or NoAudit()
        self._metrics = metrics or NoMetrics()
        self._dead = DeadLetters(dead, audit=self._audit, metrics=self._metrics)
        self._keep = keep
        self._window = unconfirmed
        self._orders: Lane = asyncio.Queue(WAITING_MESSAGES)
        self._events: Lane = asyncio.Queue(WAITING_MESSAGES)
        self._answers: Lane = asyncio.Queue()
        self._unanswered: Counter[str] = Counter()

    async def run(self) -> None:
        """Publish what waits, in order, for ever. A message nobody can take is logged, not fatal."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dead.run(), name="dead letters")
            group.create_task(self._say(self._events, _logged), name="say events")
            group.create_task(self._say(self._orders, _logged), name="say orders")
            group.create_task(self._say(self._answers, self._answered), name="say answers")

    async def _say(self, lane: Lane, done: Callable[[Envelope, Exception | None], None]) -> None:
        unconfirmed: set[str] = set()
        async with InOrder(self._publisher, window=self._window, done=done) as messages:
            while True:
                if lane.empty():
                    await messages.confirmed()
                    unconfirmed.clear()
                envelope = await lane.get()
                if isinstance(envelope, asyncio.Event):
                    await messages.confirmed()
                    envelope.set()
                elif envelope.exchange == EVENTS:
                    await messages.publish(envelope)  # the events always have their stream
                else:
                    if _same_reader(envelope.routing_key, unconfirmed):
                        await messages.confirmed()
                        unconfirmed.clear()
                    unconfirmed.add(envelope.routing_key)
                    await messages.publish(envelope, mandatory=False)  # a site that was never enrolled has no queue

    def _answered(self, envelope: Envelope, error: Exception | None) -> None:
        _logged(envelope, error)
        self._unanswered[envelope.routing_key] -= 1

    async def drained(self) -> None:
        """Wait until every order and event said so far was published, whatever is said meanwhile."""
        for lane in (self._orders, self._events):
            said = asyncio.Event()
            await lane.put(said)
            await said.wait()

    async def tell(self, site: str | None, message: ControlMessage) -> None:
        """Send a control message to one site, or to all."""
        await self._orders.put(self._post.control(message, site=site))

    def answer(self, site: str, message: ControlMessage) -> None:
        """Send a site what it asked for; let go while MOST_ANSWERS wait for it."""
        envelope = self._post.control(message, site=site)
        if self._unanswered[envelope.routing_key] < MOST_ANSWERS:
            self._unanswered[envelope.routing_key] += 1
            self._answers.put_nowait(envelope)

    async def event(self, job: str, happened: events.Happened) -> None:
        """Publish an event of a job, or of NOBODY's, and write the same as a log line."""
        event = events.wire_of(happened, job=job, at=time.time())
        say = log.warning if type(happened) in _WARNINGS else log.info
        say(event.kind, job=job, site=event.site, text=event.text, **event.facts)
        audit_lines.note(self._audit, job, happened)
        counting.count(self._metrics, job, happened, at=event.at)
        if type(happened) in events.INCIDENTS:
            await self._keep(event)
        await self._events.put(self._post.event(event))

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Keep a message that breaks the protocol where people can look at it, with the reason in a header."""
        self._dead.refuse(delivery, reason)


def _same_reader(key: str, others: Collection[str]) -> bool:
    """Whether a control message with this key reaches a site that one of the `others` reaches."""
    everybody = control_key_all()
    return key in others or everybody in others or (key == everybody and bool(others))


def _logged(envelope: Envelope, error: Exception | None) -> None:
    """One message that cannot be said must not silence all."""
    if error is not None:
        log.error("unsaid", type=envelope.type, key=envelope.routing_key, error=str(error))


_WARNINGS = {
    events.JobTrouble,
    events.JobPaused,
    events.SiteLost,
    events.SiteRevoked,
    events.RevocationListOld,
    events.SiteDeclined,
    events.SiteLimited,
    events.SiteResync,
    events.SiteClock,
    events.TrainerTrouble,
    events.SiteInfluence,
    events.SiteStandsOut,
    events.ScoreNotFinite,
    events.ScoreFailed,
    events.UpdateRefused,
}
