"""Several messages unconfirmed, and none overtakes another, whatever breaks in between."""

from __future__ import annotations

import asyncio

from fedbus.bus.consumer import Consumer
from fedbus.bus.envelope import Envelope
from fedbus.bus.in_order import InOrder
from fedbus.bus.publisher import Publisher
from fedbus.errors import BusError, ConnectionLostError, PublishError


class Link:
    """Takes messages in order; `breaks_at` so many, it takes no more and confirms none of the last `unheard`."""

    def __init__(self, *, breaks_at: int | None = None, unheard: int = 0, refuses: str = "") -> None:
        self.taken: list[str] = []
        self.breaks_at = breaks_at
        self.unheard = unheard
        self.refuses = refuses

    async def sender(self):
        if self.breaks_at == 0:
            raise ConnectionLostError("down")
        return self.once

    async def once(self, envelope: Envelope, mandatory: bool) -> None:
        if envelope.message_id == self.refuses:
            raise BusError("refused")
        broken = self.breaks_at is not None and len(self.taken) >= self.breaks_at
        if not broken:
            self.taken.append(envelope.message_id)
        await asyncio.sleep(0)
        if self.breaks_at is not None and (broken or len(self.taken) > self.breaks_at - self.unheard):
            raise ConnectionLostError("cut")

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        self.breaks_at = None
        if envelope.message_id == self.refuses:
            raise PublishError("refused")
        self.taken.append(envelope.message_id)


def message(number: int) -> Envelope:
    return Envelope(exchange="", routing_key="q", type="t", body=b"", message_id=str(number))


async def published(link: Link, count: int, *, window: int = 4) -> list[tuple[str, str]]:
    """Publish so many messages; ids and errors as they were said to be done."""
    done: list[tuple[str, str]] = []

    def told(envelope: Envelope, error: Exception | None) -> None:
        done.append((envelope.message_id, str(error or "")))

    async with InOrder(link, window=window, done=told) as messages:
        for number in range(count):
            await messages.publish(message(number))
        await messages.confirmed()
    return done


def first_times(taken: list[str]) -> list[str]:
    return list(dict.fromkeys(taken))


async def test_messages_go_out_in_order_and_are_done_in_order() -> None:
    link = Link()
    done = await published(link, 10)
    assert link.taken == [str(n) for n in range(10)]
    assert done == [(str(n), "") for n in range(10)]


async def test_what_was_not_confirmed_goes_out_again_before_anything_new_and_in_order() -> None:
    for breaks_at in range(8):
        for unheard in range(3):
            link = Link(breaks_at=breaks_at, unheard=unheard)
            done = await published(link, 10)
            assert first_times(link.taken) == [str(n) for n in range(10)]
            assert done == [(str(n), "") for n in range(10)]


async def test_a_message_that_cannot_be_published_is_said_and_the_others_are_not_lost() -> None:
    link = Link(refuses="3")
    done = await published(link, 6)
    assert done == [(str(n), "refused" if n == 3 else "") for n in range(6)]
    assert sorted(link.taken) == ["0", "1", "2", "4", "5"]


async def test_a_real_broker_gets_them_in_order_though_the_link_is_cut(proxy, proxied, queue, envelope):
    done: list[str | None] = []
    async with InOrder(
        Publisher(proxied), window=16, done=lambda sent, error: done.append(str(error) if error else None)
    ) as messages:
        for number in range(600):
            if number in (150, 400):
                proxy.cut()
            await messages.publish(envelope(queue, str(number).encode()))
        await messages.confirmed()
    assert done == [None] * 600
    bodies: list[bytes] = []
    async with asyncio.timeout(30), Consumer(proxied, queue, prefetch=64) as deliveries:
        async for delivery in deliveries:
            bodies.append(delivery.envelope.body)
            await delivery.ack()
            if delivery.envelope.body == b"599":
                break
    assert [int(body) for body in dict.fromkeys(bodies)] == list(range(600))
