"""Consuming from a real broker: hand-made acks, losses bridged, one owner of a name."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fedbus.bus.consumer import Consumer, ack_all
from fedbus.bus.declare import delete_queue
from fedbus.bus.publisher import Publisher
from fedbus.errors import LoginError, NameTakenError, NoSuchQueueError

SOON = timedelta(milliseconds=200)


@pytest.fixture
async def publisher(open_session):
    return Publisher(await open_session())


async def test_unacked_message_comes_again_after_a_cut_and_the_late_ack_is_ignored(
    proxied, proxy, publisher, queue, envelope
):
    await publisher.publish(envelope(queue, b"once"))

    async with asyncio.timeout(20), Consumer(proxied, queue, prefetch=4) as deliveries:
        first = await anext(deliveries)
        proxy.cut()
        second = await anext(deliveries)
        await first.ack()
        await first.reject()
        await second.ack()

    assert not first.envelope.redelivered
    assert second.envelope.redelivered
    assert second.envelope.body == b"once"


async def test_acked_message_does_not_come_again(open_session, publisher, queue, envelope):
    session = await open_session()
    await publisher.publish_many([envelope(queue, b"1"), envelope(queue, b"2")])

    async with Consumer(session, queue, prefetch=1) as deliveries:
        await (await anext(deliveries)).ack()
    async with Consumer(session, queue, prefetch=1) as deliveries:
        delivery = await anext(deliveries)

    assert delivery.envelope.body == b"2"


async def test_what_came_together_is_acked_together_also_across_a_cut(proxied, proxy, publisher, queue, envelope):
    # given one message of a channel that was cut, and what came on the next
    async with asyncio.timeout(20), Consumer(proxied, queue, prefetch=4) as deliveries:
        await publisher.publish(envelope(queue, b"0"))
        came = [await anext(deliveries)]
        proxy.cut()
        await publisher.publish_many([envelope(queue, body) for body in (b"1", b"2", b"3")])
        came += [await anext(deliveries) for _ in range(3)]
        # when they are acked in one word
        await ack_all(came)
        # then only what was not among them is left
        left = await anext(deliveries)
    assert {delivery.envelope.body for delivery in [*came, left]} == {b"0", b"1", b"2", b"3"}
    async with asyncio.timeout(20), Consumer(proxied, queue, prefetch=4) as deliveries:
        assert (await anext(deliveries)).envelope.body == left.envelope.body
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON.total_seconds()):
                await anext(deliveries)


async def test_requeued_message_comes_again(open_session, publisher, queue, envelope):
    session = await open_session()
    await publisher.publish(envelope(queue))

    async with asyncio.timeout(20), Consumer(session, queue, prefetch=1) as deliveries:
        await (await anext(deliveries)).reject(requeue=True)
        again = await anext(deliveries)

    assert again.envelope.redelivered


async def test_rejected_message_goes_to_the_dead_letters(open_session, publisher, envelope):
    session = await open_session()
    await publisher.publish(envelope("submit.someone", exchange="fedbus.jobs"))

    async with asyncio.timeout(20):
        async with Consumer(session, "fedbus.jobs", prefetch=1) as deliveries:
            await (await anext(deliveries)).reject()
        async with Consumer(session, "fedbus.dead", prefetch=1) as deliveries:
            dead = await anext(deliveries)

    assert dead.envelope.headers["x-first-death-reason"] == "rejected"


async def test_no_more_than_prefetch_are_handed_out_unacked(open_session, publisher, queue, envelope):
    session = await open_session()
    await publisher.publish_many(envelope(queue) for _ in range(5))

    async with Consumer(session, queue, prefetch=2) as deliveries:
        first, _ = await anext(deliveries), await anext(deliveries)
        third = asyncio.ensure_future(anext(deliveries))
        await asyncio.wait({third}, timeout=0.2)
        assert not third.done()
        await first.ack()
        async with asyncio.timeout(20):
            await third


async def test_second_exclusive_consumer_is_told_that_the_name_is_taken(open_session, vhost):
    first = await open_session(vhost.url("site-a"))
    second = await open_session(vhost.url("site-a"))

    async with Consumer(first, "fedbus.site.site-a", prefetch=1, exclusive=True) as ours:
        await ours.attached()
        with pytest.raises(NameTakenError, match=r"fedbus\.site\.site-a .* a second daemon runs under the same name"):
            async with Consumer(
                second, "fedbus.site.site-a", prefetch=1, exclusive=True, grace_at_start=SOON
            ) as theirs:
                await anext(theirs)


async def test_exclusive_consumer_takes_over_when_the_other_goes_within_the_grace(
    open_session, vhost, publisher, envelope
):
    first = await open_session(vhost.url("site-a"))
    second = await open_session(vhost.url("site-a"))
    inbox = "fedbus.site.site-a"

    async with asyncio.timeout(20), Consumer(second, inbox, prefetch=1, exclusive=True) as theirs:
        async with Consumer(first, inbox, prefetch=1, exclusive=True) as ours:
            await ours.attached()
            after = asyncio.ensure_future(anext(theirs))
            await asyncio.wait({after}, timeout=0.2)
        await publisher.publish(envelope("site.site-a", b"hello", exchange="fedbus.control"))
        delivery = await after

    assert delivery.envelope.body == b"hello"


async def test_grace_does_not_run_while_the_broker_is_away(proxy, vhost, open_session):
    # given a consumer that begins while its link is down for longer than the grace
    inbox, grace = "fedbus.site.site-a", timedelta(seconds=1.5)
    first = await open_session(vhost.url("site-a"))
    second = await open_session(proxy.url(vhost.url("site-a")))
    exclusive = {"prefetch": 1, "exclusive": True}
    async with asyncio.timeout(20), Consumer(second, inbox, grace_at_start=grace, **exclusive) as theirs:
        async with Consumer(first, inbox, **exclusive) as ours:
            await ours.attached()
            proxy.down()
            after = asyncio.ensure_future(theirs.attached())
            await asyncio.wait({after}, timeout=1.7)
            # when the link is back, and the other one is still there for a moment
            await proxy.up(proxy.port)
            await asyncio.wait({after}, timeout=0.2)
            assert not after.done()
        # then it takes over
        await after


async def test_exclusive_consumer_comes_back_after_a_cut(proxy, vhost, open_session, publisher, envelope):
    session = await open_session(proxy.url(vhost.url("site-a")))

    async with asyncio.timeout(20), Consumer(session, "fedbus.site.site-a", prefetch=1, exclusive=True) as ours:
        await ours.attached()
        waiting = asyncio.ensure_future(anext(ours))
        proxy.cut()
        await publisher.publish(envelope("site.site-a", b"hello", exchange="fedbus.control"))
        delivery = await waiting

    assert delivery.envelope.body == b"hello"


async def test_queue_that_does_not_exist_is_named(open_session):
    session = await open_session()

    with pytest.raises(NoSuchQueueError, match=r"fedbus\.nowhere"):
        await anext(Consumer(session, "fedbus.nowhere", prefetch=1))


async def test_queue_deleted_under_a_consumer_ends_it(open_session, queue):
    session = await open_session()
    deliveries = Consumer(session, queue, prefetch=1)
    await deliveries.attached()
    waiting = asyncio.ensure_future(anext(deliveries))

    await delete_queue(await open_session(), queue)

    with pytest.raises(NoSuchQueueError, match=queue):
        async with asyncio.timeout(20):
            await waiting


async def test_queue_of_another_site_may_not_be_read(open_session, vhost):
    session = await open_session(vhost.url("site-a"))

    with pytest.raises(LoginError, match=r"fedbus\.site\.site-b"):
        await anext(Consumer(session, "fedbus.site.site-b", prefetch=1))
