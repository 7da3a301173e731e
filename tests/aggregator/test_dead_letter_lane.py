"""Dead letters wait in a lane of their own, bounded in bytes; a broker that takes none does not hold up the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from structlog.testing import capture_logs

from fedbus.bus.envelope import Envelope
from services.aggregator.dead_letters import AT_ONCE, KEPT_BYTES, MESSAGE_BYTES, ROOM_BYTES, DeadLetters

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


async def refuse(letters: DeadLetters, delivery: Delivery, reason: str = "no update id") -> None:
    await letters.refuse(delivery, reason)  # type: ignore[arg-type]


async def test_a_message_is_kept_as_it_came_with_its_reason_sender_and_origin() -> None:
    broker = Broker()
    broker.no_alarm.set()
    async with lane(broker) as letters:
        await refuse(letters, Delivery.of(b"garbage"), "r" * 1000)
        await letters.drained()
    (dead,) = broker.published
    assert (dead.exchange, dead.routing_key, dead.body, dead.message_id) == ("fedbus.dead", "updates", b"garbage", "7")
    assert dead.headers == {"reason": "r" * 500, "sender": "mallory", "origin": "fedbus.updates/heart.mallory"}


async def test_a_flood_waits_for_the_broker_and_does_not_fill_the_memory() -> None:
    # given a broker that takes nothing for now
    broker = Broker()
    async with lane(broker, patience=timedelta(seconds=15)) as letters:
        flood = [asyncio.create_task(refuse(letters, Delivery.of(bytes(MIB)))) for _ in range(40)]
        while broker.begun < AT_ONCE:  # noqa: ASYNC110 the lane begins in a few turns of the loop
            await asyncio.sleep(0)
        # then only so much is taken out of the queue as there is room for
        assert sum(task.done() for task in flood) == ROOM_BYTES // MIB - 1
        # and when the broker takes again, all of it is kept
        broker.no_alarm.set()
        await asyncio.gather(*flood)
        await letters.drained()
    assert len(broker.published) == 40


async def test_of_a_message_larger_than_the_room_the_beginning_is_kept() -> None:
    broker = Broker()
    broker.no_alarm.set()
    async with lane(broker) as letters:
        await refuse(letters, Delivery.of(bytes(ROOM_BYTES)))
        await letters.drained()
    assert [len(envelope.body) for envelope in broker.published] == [KEPT_BYTES]


FILLING = ROOM_BYTES // KEPT_BYTES


async def fill(letters: DeadLetters) -> None:
    """FILLING messages, after which not one more fits."""
    rest = ROOM_BYTES - (FILLING - 1) * (KEPT_BYTES + MESSAGE_BYTES)
    for body_bytes in (*[KEPT_BYTES] * (FILLING - 1), rest - MESSAGE_BYTES):
        await refuse(letters, Delivery.of(bytes(body_bytes)))


async def test_while_the_broker_takes_nothing_what_is_broken_is_let_go_and_that_is_said() -> None:
    # given a lane that is full
    broker = Broker()
    async with lane(broker, patience=timedelta(seconds=0.5)) as letters:
        await fill(letters)
        # when more comes, then it is waited once, not for every message
        with capture_logs() as said:
            async with asyncio.timeout(8):
                for number in range(20):
                    await refuse(letters, Delivery.of(sender=f"site-{number}"))
        assert [(line["sender"], line["let_go"]) for line in said] == [(f"site-{n}", 1) for n in range(20)]
        # and once the broker has taken something, it is waited for again
        broker.no_alarm.set()
        await letters.drained()
        broker.no_alarm.clear()
        await fill(letters)
        waiting = asyncio.create_task(refuse(letters, Delivery.of(b"kept")))
        while broker.begun < FILLING + AT_ONCE:  # noqa: ASYNC110 the lane begins in a few turns of the loop
            await asyncio.sleep(0)
        broker.no_alarm.set()
        await waiting
        await letters.drained()
    assert [envelope.body for envelope in broker.published][2 * FILLING :] == [b"kept"]


async def test_a_sender_is_named_in_the_log_once_a_second_with_the_number_of_its_messages() -> None:
    broker, now = Broker(), [100.0]
    broker.no_alarm.set()
    async with lane(broker, clock=lambda: now[0]) as letters:
        with capture_logs() as said:
            for _ in range(50):
                await refuse(letters, Delivery.of())
            await refuse(letters, Delivery.of(sender="other"))
            now[0] += 1
            await refuse(letters, Delivery.of())
        await letters.drained()
    assert [(line["sender"], line["messages"]) for line in said] == [("mallory", 1), ("other", 1), ("mallory", 50)]
    assert len(broker.published) == 52
