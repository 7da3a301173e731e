"""What the aggregator says: control messages to sites, events to watchers, log lines to its own operator.

Saying never holds up folding: messages wait in a bounded queue and leave in order on the control connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from fedbus.bus import mail
from fedbus.bus.consumer import Delivery
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import EVENTS
from fedbus.core import events
from fedbus.core import messages as m
from fedbus.errors import PublishError
from services.aggregator.dead_letters import DeadLetters

WAITING_MESSAGES = 10_000

log = structlog.get_logger()


class Announcer:
    """Run `run` as a task; everything else only queues. `keep` makes incidents durable, `dead` what is refused."""

    def __init__(self, publisher: Publisher, *, dead: Publisher, keep: Callable[[m.Event], Awaitable[None]]) -> None:
        self._publisher = publisher
        self._dead = DeadLetters(dead)
        self._keep = keep
        self._waiting: asyncio.Queue[Envelope] = asyncio.Queue(WAITING_MESSAGES)

    async def run(self) -> None:
        """Publish what waits, in order, for ever. A message nobody can take is logged, not fatal."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dead.run(), name="dead letters")
            group.create_task(self._say(), name="say")

    async def _say(self) -> None:
        while True:
            envelope = await self._waiting.get()
            try:
                # the events always have their stream; a site that was never enrolled has no queue
                await self._publisher.publish(envelope, mandatory=envelope.exchange == EVENTS)
            except PublishError as exc:
                log.error("unsaid", type=envelope.type, key=envelope.routing_key, error=str(exc))
            self._waiting.task_done()

    async def drained(self) -> None:
        """Wait until everything said so far was published."""
        await self._waiting.join()
        await self._dead.drained()

    async def tell(self, site: str | None, message: mail.ControlMessage) -> None:
        """Send a control message to one site, or to all."""
        await self._waiting.put(mail.control(message, site=site))

    async def event(self, kind: str, job: str, text: str, *, site: str = events.NOBODY, **facts: object) -> None:
        """Publish an event and write the same as a log line."""
        (log.warning if kind in _WARNINGS else log.info)(kind, job=job, site=site, text=text, **facts)
        event = m.Event(at=time.time(), job=job, site=site, kind=kind, text=text, facts=facts)
        if kind in events.INCIDENTS:
            await self._keep(event)
        await self._waiting.put(mail.event(event))

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Keep a message that breaks the protocol where people can look at it, with the reason in a header."""
        self._dead.refuse(delivery, reason)


_WARNINGS = {
    events.SITE_LOST,
    events.SITE_DECLINED,
    events.SITE_RESYNC,
    events.TRAINER_TROUBLE,
    events.UPDATE_REFUSED,
}
