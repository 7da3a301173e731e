"""Dead letters wait in a lane of their own, bounded in bytes; nobody waits for it, whoever sends whatever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import capture_logs

from fedbus.aggregator.voice.dead_letters import KEPT_BYTES, ROOM_BYTES, SENDER_BYTES, DeadLetters
from fedbus.bus.envelope import Envelope

MIB = 1 << 20


@dataclass
class Delivery:
    """A message that somebody sent."""

    envelope: Envelope

    @classmethod
    def of(cls, body: bytes = b"x", *, sender: str = "mallory") -> Delivery:
        return cls(
            Envelope(
                exchange="fedbus.updates",
                routing_key="heart.mallory",
                type="t",
                body=body,
                message_id="7",
                user_id=sender,
            )
        )


@dataclass
class Broker:
    """Keeps what is published; takes nothing while `alarm` is on."""

    published: list[Envelope] = field(default_factory=list)
    no_alarm: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    async def publish(self, envelope: Envelope, *, mandatory: bool) -> None:
        self.begun += 1
        await self.no_alarm.wait()
        self.published.append(envelope)


@asynccontextmanager
async def lane(broker: Broker, **settings: Any) -> AsyncIterator[DeadLetters]:
    letters = DeadLetters(broker, **settings)  # type: ignore[arg-type]
    running = asyncio.create_task(letters.run())
    try:
        async with asyncio.timeout(20):
            yield letters
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def refuse(letters: DeadLetters, delivery: Delivery, reason: str = "no update id") -> None:
    letters.refuse(delivery, reason)  # type: ignore[arg-type]


async def test_a_message_is_kept_as_it_came_with_its_reason_sender_and_origin() -> None:
    broker = Broker()
    broker.no_alarm.set()
    async with lane(broker) as letters:
        refuse(letters, Delivery.of(b"garbage"), "r" * 1000)
        await letters.drained()
    (dead,) = broker.published
    assert (dead.exchange, dead.routing_key, dead.body, dead.message_id) == ("fedbus.dead", "updates", b"garbage", "7")
    assert dead.headers == {"reason": "r" * 500, "sender": "mallory", "origin": "fedbus.updates/heart.mallory"}


async def test_of_a_flood_only_so_much_waits_and_nobody_waits_for_it() -> None:
    # given a broker that takes nothing for now
    broker, now = Broker(), [100.0]
    async with lane(broker, clock=lambda: now[0]) as letters:
        with capture_logs() as said:
            # when one sender floods, no call waits
            for _ in range(40):
                refuse(letters, Delivery.of(bytes(MIB)))
            # then another one's messages are kept all the same
            refuse(letters, Delivery.of(b"small", sender="other"))
            now[0] += 1
            refuse(letters, Delivery.of(bytes(MIB)))
        broker.no_alarm.set()
        await letters.drained()
    kept = SENDER_BYTES // MIB - 1
    assert len([e for e in broker.published if e.headers["sender"] == "mallory"]) == kept
    assert [e.body for e in broker.published if e.headers["sender"] == "other"] == [b"small"]
    # and it is said how many were let go
    assert sum(line["let_go"] for line in said if line["sender"] == "mallory") == 41 - kept


async def test_all_senders_together_do_not_fill_the_memory_either() -> None:
    broker = Broker()
    async with lane(broker) as letters:
        for number in range(1000):
            refuse(letters, Delivery.of(bytes(MIB - 1024), sender=f"site-{number % 20}"))
        broker.no_alarm.set()
        await letters.drained()
    assert sum(len(e.body) for e in broker.published) <= ROOM_BYTES + 20 * MIB


async def test_of_a_message_larger_than_the_room_the_beginning_is_kept_and_there_is_room_again() -> None:
    broker = Broker()
    broker.no_alarm.set()
    async with lane(broker) as letters:
        for _ in range(5):
            refuse(letters, Delivery.of(bytes(ROOM_BYTES)))
            await letters.drained()
    assert [len(envelope.body) for envelope in broker.published] == [KEPT_BYTES] * 5


async def test_a_sender_is_named_in_the_log_once_a_second_with_the_number_of_its_messages() -> None:
    broker, now = Broker(), [100.0]
    broker.no_alarm.set()
    async with lane(broker, clock=lambda: now[0]) as letters:
        with capture_logs() as said:
            for _ in range(50):
                refuse(letters, Delivery.of())
            refuse(letters, Delivery.of(sender="other"))
            now[0] += 1
            refuse(letters, Delivery.of())
        await letters.drained()
    assert [(line["sender"], line["messages"]) for line in said] == [("mallory", 1), ("other", 1), ("mallory", 50)]
    assert len(broker.published) == 52
