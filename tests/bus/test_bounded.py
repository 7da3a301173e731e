"""A reader's memory follows what it takes, not what is sent: a body that is too long is let go while it is read."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from fedbus.bus.bounded import REFUSED_BYTES
from fedbus.bus.consumer import Consumer
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import MAX_MESSAGE_BYTES
from fedbus.errors import ProtocolError

MOST = 100_000


@pytest.mark.parametrize("size", [0, 1, MOST, MOST + 1, 131_064, 131_065, 1_000_000, MAX_MESSAGE_BYTES])
async def test_a_body_is_whole_or_let_go_and_what_comes_behind_it_is_whole(open_session, queue, envelope, size):
    # given a message of some length and a short one behind it
    session = await open_session()
    publisher = Publisher(session)
    await publisher.publish(envelope(queue, b"x" * size))
    await publisher.publish(envelope(queue, b"behind"))
    # when they are read by somebody who takes so many bytes
    async with Consumer(session, queue, prefetch=2, most_bytes=MOST) as deliveries:
        first, second = await anext(deliveries), await anext(deliveries)
        for delivery in (first, second):
            await delivery.ack()
    # then the first came whole, or without its body and with its length
    expected = (size, 0) if size <= MOST else (0, size)
    assert (len(first.envelope.body), first.envelope.refused_bytes) == expected
    assert second.envelope.body == b"behind"


async def test_how_long_it_may_be_is_a_matter_of_its_type(open_session, queue, envelope):
    session = await open_session()
    publisher = Publisher(session)
    for kind in ("chunk", "update"):
        await publisher.publish(envelope(queue, bytes(MOST), type=kind))
    takes = {"chunk": MOST, "update": MOST - 1}
    async with Consumer(session, queue, prefetch=2, most_bytes=lambda kind: takes[kind]) as deliveries:
        refused = [(await anext(deliveries)).envelope.refused_bytes for _ in range(2)]
    assert refused == [0, MOST]


async def test_what_was_let_go_says_so_and_nobody_can_say_it_of_something_else(open_session, queue, envelope):
    session = await open_session()
    publisher = Publisher(session)
    await publisher.publish(envelope(queue, bytes(MOST + 1), headers={"schema": 1}))
    await publisher.publish(envelope(queue, b"{}", headers={"schema": 1, REFUSED_BYTES: 7}))
    await publisher.publish(envelope(queue, b"", headers={"schema": 1, REFUSED_BYTES: 7}))
    async with Consumer(session, queue, prefetch=3, most_bytes=MOST) as deliveries:
        found = [(await anext(deliveries)).envelope for _ in range(3)]
    assert [e.refused_bytes for e in found] == [MOST + 1, 0, 0]
    assert all(REFUSED_BYTES not in e.headers for e in found)
    with pytest.raises(ProtocolError, match=rf"has {MOST + 1} bytes, more than may come here"):
        Post().from_envelope(found[0])


async def test_many_large_messages_cost_their_reader_no_memory(open_session, queue, envelope: Any):
    # given 64 messages of 1 MiB that nobody has read
    session = await open_session()
    publisher = Publisher(session)
    await publisher.publish_many(envelope(queue, bytes(1 << 20)) for _ in range(64))
    # when all of them are delivered at once to somebody who takes less
    reader = await open_session()
    async with Consumer(reader, queue, prefetch=64, most_bytes=MOST) as deliveries:
        tracemalloc.start()
        found = [await anext(deliveries) for _ in range(64)]
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert all(delivery.envelope.refused_bytes == 1 << 20 for delivery in found)
    assert peak_bytes < 16 << 20
