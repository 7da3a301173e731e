"""Logins without a daemon: what the benchmark publishes as a site, and what it hears as that site or as an operator."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity

PREFETCH = 64
LEASE_S = 10.0


class Site:
    """A site that takes part in jobs, publishes what it is told to and remembers its receipts."""

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        self.session = session
        self.session_id = secrets.token_hex(8)
        self.post = Post()
        self.publisher = Publisher(session)
        self.receipts: dict[str, m.Receipt] = {}
        self.asked_again: list[str] = []
        """Updates that the aggregator misses chunks of."""
        self.repeated = 0
        """Receipts that came again."""
        self.started: set[str] = set()
        """Jobs whose model log this site may follow."""
        self._came = asyncio.Event()

    async def listen(self) -> None:
        """Take what the aggregator says to this site, for ever."""
        async with Consumer(self.session, t.site_queue(self.name), prefetch=PREFETCH) as deliveries:
            async for delivery in deliveries:
                message = self.post.from_envelope(delivery.envelope)
                if isinstance(message, m.Receipt):
                    self.repeated += message.update_id in self.receipts
                    self.receipts[message.update_id] = message
                elif isinstance(message, m.JobStarted):
                    self.started.add(message.job)
                elif isinstance(message, m.ResendRequest):
                    self.asked_again.append(message.update_id)
                self._came.set()
                await delivery.ack()

    async def take_part(self, job: str) -> None:
        """Join, accept a job that runs, and wait until its start is told."""
        join = m.Join(site=self.name, session=self.session_id, tasks=("synthetic",), fedbus_version="0.1.0")
        for message in (join, m.OfferAnswer(site=self.name, job=job, accepted=True)):
            await self.publisher.publish(self.post.from_site(message))
        await self._until(lambda: job in self.started)

    async def stay(self, job: str) -> None:
        """Renew the lease, for ever, as a site does."""
        does = (m.JobActivity(job=job, activity=Activity.TRAINING, version=0),)
        while True:
            status = m.SiteStatus(site=self.name, session=self.session_id, lease_s=LEASE_S, jobs=does)
            await self.publisher.publish(self.post.from_site(status))
            await asyncio.sleep(LEASE_S / 10)

    async def receipt(self, update_id: str) -> m.Receipt:
        """Wait for the receipt of an update."""
        await self._until(lambda: update_id in self.receipts)
        return self.receipts[update_id]

    async def asked_for(self, update_id: str) -> None:
        """Wait until the aggregator asks for an update."""
        await self._until(lambda: update_id in self.asked_again)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._came.clear()
            await self._came.wait()


@asynccontextmanager
async def site(name: str, url: str) -> AsyncIterator[Site]:
    """A site until the end of the block."""
    async with Session(url, name=f"{name}/abuse") as session, asyncio.TaskGroup() as group:
        made = Site(name, session)
        listening = group.create_task(made.listen(), name=f"listen {name}")
        yield made
        listening.cancel()


class Dead:
    """What lies in `fedbus.dead`, taken out as it comes: the queue keeps only the newest."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    async def collect(self, session: Session) -> None:
        """Remember the reason of each message by its id, for ever."""
        async with Consumer(session, t.DEAD, prefetch=PREFETCH) as deliveries:
            async for delivery in deliveries:
                reason = delivery.envelope.headers.get("reason", "")
                self.reasons[delivery.envelope.message_id] = str(reason)
                await delivery.ack()


@asynccontextmanager
async def dead_letters(url: str) -> AsyncIterator[Dead]:
    """Collect dead letters until the end of the block; `url` is the aggregator's."""
    async with Session(url, name="aggregator/abuse") as session, asyncio.TaskGroup() as group:
        dead = Dead()
        collecting = group.create_task(dead.collect(session), name="dead letters")
        yield dead
        collecting.cancel()
