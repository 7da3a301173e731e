"""Publishing to a real broker: confirmed, mandatory, sent again after every kind of interruption."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from fedbus.bus import topology as t
from fedbus.bus.connection import LinkState, Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare
from fedbus.bus.publisher import Publisher
from fedbus.bus.rpc import request
from fedbus.bus.topology import QueueSpec, Topology
from fedbus.errors import NoAnswerError, PublishError, UnroutableError

MIB = 1 << 20


async def received(session, queue, count):
    """Bodies of the next `count` messages of a queue, acked."""
    bodies = []
    async with asyncio.timeout(20), Consumer(session, queue, prefetch=16) as deliveries:
        async for delivery in deliveries:
            bodies.append(delivery.envelope.body)
            await delivery.ack()
            if len(bodies) == count:
                return bodies
    raise AssertionError("the consumer ended")


async def test_published_message_arrives_with_all_it_carries(open_session, queue, envelope):
    session = await open_session()
    sent = envelope(
        queue,
        b"body",
        headers={"schema": 1, "traceparent": "00-ab-cd-01"},
        content_type="application/json",
        reply_to="somewhere",
        correlation_id="c1",
        expiration=timedelta(seconds=60),
    )

    await Publisher(session).publish(sent)

    async with Consumer(session, queue, prefetch=1) as deliveries:
        delivery = await anext(deliveries)
        await delivery.ack()
    got = delivery.envelope
    assert got.user_id == "aggregator"
    assert not got.redelivered
    for field in ("routing_key", "type", "body", "message_id", "content_type", "headers", "reply_to", "correlation_id"):
        assert getattr(got, field) == getattr(sent, field), field
    assert got.expiration == timedelta(seconds=60)


async def test_unroutable_message_raises(open_session, envelope):
    publisher = Publisher(await open_session(), routes_return=timedelta(0))

    with pytest.raises(UnroutableError, match=r"fedbus\.nowhere: no queue takes it"):
        await publisher.publish(envelope("fedbus.nowhere"))


async def test_message_waits_for_its_queue_on_a_link_that_is_young(open_session, envelope):
    # given a message for a stream that a restarted broker has not got back yet
    session = await open_session()
    with capture_logs() as logs:
        publishing = asyncio.create_task(Publisher(session).publish(envelope("fedbus.test.late")))
        async with asyncio.timeout(20):
            while not logs:  # noqa: ASYNC110 log lines wake nobody
                await asyncio.sleep(0.01)
            assert "no queue takes it" in logs[0]["reason"]
            # when the stream is there again, then the message is taken
            arguments = {"x-queue-type": "stream"}
            await declare(session, Topology(queues=(QueueSpec(name="fedbus.test.late", arguments=arguments),)))
            await publishing


async def test_unroutable_message_is_dropped_when_not_mandatory(open_session, envelope):
    await Publisher(await open_session()).publish(envelope("fedbus.nowhere"), mandatory=False)


async def test_refused_message_says_why_and_leaves_its_neighbours_alone(open_session, vhost, envelope):
    publisher = Publisher(await open_session(vhost.url("site-a")))
    key = "fedbus.sites"

    def status(site):
        return envelope(f"{site}.status", exchange=key, type="status")

    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(
            *(publisher.publish(status(site)) for site in ("site-a", "site-a", "site-b", "site-a", "site-a")),
            return_exceptions=True,
        )

    refused = [outcome for outcome in outcomes if outcome is not None]
    assert refused == [outcomes[2]]
    assert isinstance(refused[0], PublishError)
    assert "site-b.status" in str(refused[0])


async def test_message_to_an_unknown_exchange_is_refused(open_session, envelope):
    publisher = Publisher(await open_session())

    with pytest.raises(PublishError, match="no exchange"):
        await publisher.publish(envelope("key", exchange="fedbus.unknown"))


async def test_publish_during_an_outage_is_delivered_after_it(proxied, proxy, queue, envelope):
    publisher = Publisher(proxied)
    await publisher.publish(envelope(queue, b"before"))

    proxy.down()
    during = asyncio.create_task(publisher.publish(envelope(queue, b"during")))
    await asyncio.wait({during}, timeout=0.2)
    assert not during.done()
    await proxy.up(proxy.port)
    async with asyncio.timeout(20):
        await during

    assert await received(proxied, queue, 2) == [b"before", b"during"]


async def test_publish_under_way_at_a_cut_is_sent_again_with_its_id(proxied, proxy, open_session, queue, envelope):
    publisher = Publisher(proxied)
    await publisher.publish(envelope(queue, b"warm up"))

    proxy.stall()
    under_way = asyncio.create_task(publisher.publish(envelope(queue, b"twice", message_id="the-id")))
    await asyncio.wait({under_way}, timeout=0.2)
    proxy.cut()
    proxy.resume()
    async with asyncio.timeout(20):
        await under_way

    direct = await open_session()
    assert (await received(direct, queue, 2))[-1] == b"twice"


async def test_half_open_link_is_replaced_when_a_confirm_stays_away(proxy, vhost, open_session, queue, envelope):
    session = await open_session(proxy.url(vhost.url("aggregator")), answer_within=timedelta(milliseconds=300))
    publisher = Publisher(session)
    await publisher.publish(envelope(queue, b"before"))

    proxy.stall()
    async with asyncio.timeout(20):
        await publisher.publish(envelope(queue, b"after"))

    assert (await received(session, queue, 2))[-1] == b"after"


async def test_alarm_is_told_and_the_publish_waits_for_its_end(throw_away_node, envelope):
    node = throw_away_node()
    node.start(sites=["site-a"])
    told: list[LinkState] = []
    url, long = node.url("aggregator"), timedelta(hours=1)
    note = lambda state, _: told.append(state)  # noqa: E731
    async with Session(url, name="test", on_state=note, answer_within=long) as session:
        await session.ready()
        publisher = Publisher(session)

        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        publishing = asyncio.create_task(publisher.publish(envelope("fedbus.jobs")))
        await asyncio.wait({publishing}, timeout=2)
        assert session.blocked
        assert not publishing.done()
        # and a question ends when its time is over, whatever the broker leaves unread
        async with Session(url, name="who asks", answer_within=long) as asking:
            with pytest.raises(NoAnswerError, match="memory or disk alarm"):
                await request(asking, t.JOBS, "query", b"{}", timeout=timedelta(seconds=2), type="query")
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
        async with asyncio.timeout(20):
            await publishing

        assert not session.blocked
    assert told == [LinkState.CONNECTED, LinkState.BLOCKED, LinkState.CONNECTED]


async def test_many_through_cuts_all_arrive(proxied, proxy, open_session, queue, envelope):
    publisher = Publisher(proxied)
    bodies = [b"%d" % number for number in range(60)]

    async def with_cuts():
        for number, body in enumerate(bodies):
            if number % 20 == 10:
                proxy.cut()
            yield envelope(queue, body)

    async with asyncio.timeout(30):
        total = await publisher.publish_many(with_cuts(), window=4)

    assert total == sum(map(len, bodies))
    direct = await open_session()
    seen: set[bytes] = set()
    while len(seen) < 60:
        seen |= set(await received(direct, queue, 1))


async def test_window_bounds_what_is_taken_from_the_iterator(proxied, proxy, open_session, queue, envelope):
    publisher = Publisher(proxied)
    await publisher.publish(envelope(queue))
    taken = []

    def source():
        for number in range(40):
            taken.append(number)
            yield envelope(queue)

    proxy.stall()
    many = asyncio.create_task(publisher.publish_many(source(), window=5))
    async with asyncio.timeout(20):
        while len(taken) < 6:
            await asyncio.wait({many}, timeout=0.01)
    await asyncio.wait({many}, timeout=0.3)
    assert len(taken) == 6  # five in the window, one at its door
    proxy.resume()
    async with asyncio.timeout(20):
        await many

    assert len(taken) == 40


async def test_first_refusal_ends_publish_many(open_session, queue, envelope):
    publisher = Publisher(await open_session(), routes_return=timedelta(0))

    with pytest.raises(UnroutableError):
        await publisher.publish_many(envelope(name) for name in [queue, "fedbus.nowhere", queue])


async def test_full_queue_is_tried_until_it_has_room(open_session, envelope):
    session = await open_session()
    name = "fedbus.test.small"
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await declare(session, Topology(queues=(QueueSpec(name=name, arguments=arguments),)))
    publisher = Publisher(session)

    # One at a time: a quorum queue takes what arrives together before it counts.
    source = (envelope(name, b"%d" % n) for n in range(6))
    many = asyncio.create_task(publisher.publish_many(source, window=1))
    await asyncio.wait({many}, timeout=0.3)
    assert not many.done()
    bodies = await received(await open_session(), name, 6)
    async with asyncio.timeout(20):
        await many

    assert sorted(bodies) == [b"%d" % n for n in range(6)]


async def test_message_above_the_brokers_limit_is_refused_in_words(open_session, queue, envelope):
    publisher = Publisher(await open_session())

    with pytest.raises(PublishError, match="larger than configured max size"):
        await publisher.publish(envelope(queue, bytes(17 * MIB)))
