"""Streams on a real broker: resumed at the next offset, and the newest manifest found by a late joiner."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest

from fedbus.bus.declare import declare
from fedbus.bus.publisher import Publisher
from fedbus.bus.stream import StreamReader
from fedbus.bus.topology import QueueSpec, Topology
from fedbus.errors import LoginError, NoSuchQueueError

SOON = timedelta(seconds=1.5)


@pytest.fixture
async def publisher(open_session):
    return Publisher(await open_session())


async def take(records, count):
    async with asyncio.timeout(20):
        return [await anext(records) for _ in range(count)]


async def publish_version(publisher, stream, envelope, version, chunks=5):
    await publisher.publish_many(envelope(stream, b"%d/%d" % (version, n)) for n in range(chunks))
    await publisher.publish(envelope(stream, b"%d" % version, type="version"))


async def test_follow_goes_on_after_a_cut_without_loss_or_repetition(proxied, proxy, publisher, stream, envelope):
    bodies = [b"%d" % number for number in range(60)]

    async with aclosing(StreamReader(proxied, stream).follow("first")) as records:
        await publisher.publish_many((envelope(stream, body) for body in bodies[:30]), window=1)
        got = await take(records, 10)
        proxy.cut()
        got += await take(records, 15)
        proxy.cut()
        await publisher.publish_many((envelope(stream, body) for body in bodies[30:]), window=1)
        got += await take(records, 35)

    assert [record.envelope.body for record in got] == bodies
    offsets = [record.offset for record in got]
    assert offsets == sorted(set(offsets))


async def test_stored_offset_goes_on_in_another_process(open_session, publisher, stream, envelope):
    session = await open_session()
    await publisher.publish_many((envelope(stream, b"%d" % number) for number in range(20)), window=16)
    async with aclosing(StreamReader(session, stream).follow("first")) as records:
        before = await take(records, 7)

    async with aclosing(StreamReader(session, stream).follow(before[-1].offset + 1)) as records:
        after = await take(records, 13)

    assert len({record.envelope.body for record in before + after}) == 20
    assert after[0].offset > before[-1].offset


async def test_unread_records_stay_at_the_broker(proxied, proxy, publisher, stream, envelope):
    await publisher.publish_many((envelope(stream, bytes(100_000)) for _ in range(30)), window=1)

    async with aclosing(StreamReader(proxied, stream, prefetch=2).follow("first")) as records:
        await take(records, 1)
        held = asyncio.ensure_future(asyncio.Event().wait())
        await asyncio.wait({held}, timeout=0.2)
        held.cancel()

    assert proxy.passed_bytes < 400_000


async def test_late_joiner_finds_the_newest_manifest_and_its_version(open_session, publisher, stream, envelope):
    session = await open_session()
    for version in range(4):
        await publish_version(publisher, stream, envelope, version)
    log = StreamReader(session, stream)

    newest = await log.newest()

    assert newest is not None
    assert newest.envelope.body == b"3"
    start = await log.back_to(lambda record: record.body < b"3", newest=newest.offset, records=1)
    async with aclosing(log.follow(start)) as records:
        seen = [(await take(records, 1))[0].envelope.body]
        while seen[-1] != b"3":
            seen += [record.envelope.body for record in await take(records, 1)]
    assert seen[-7:] == [b"2", *(b"3/%d" % number for number in range(5)), b"3"]
    assert len(seen) < 12


@pytest.mark.parametrize("records", [1, 3, 1000])
async def test_a_place_is_never_too_late_however_far_back_one_looks_first(
    open_session, publisher, stream, envelope, records
):
    session = await open_session()
    await publisher.publish_many(envelope(stream, b"%d" % number) for number in range(100))
    log = StreamReader(session, stream)
    newest = await log.newest(kind="chunk", wait=SOON)

    start = await log.back_to(lambda record: int(record.body) < 40, newest=newest.offset, records=records)

    async with aclosing(log.follow(start)) as found:
        assert int((await take(found, 1))[0].envelope.body) < 40


async def test_a_place_that_retention_took_away_is_the_oldest_record_that_is_left(open_session, publisher, envelope):
    # given a stream whose head is gone
    session = await open_session()
    arguments = {
        "x-queue-type": "stream",
        "x-max-length-bytes": 4_000_000,
        "x-stream-max-segment-size-bytes": 1_000_000,
    }
    await declare(session, Topology(queues=(QueueSpec(name="fedbus.test.short", arguments=arguments),)))
    await publisher.publish_many((envelope("fedbus.test.short", b"%08d" % n * 12_500) for n in range(100)), window=8)
    log = StreamReader(session, "fedbus.test.short")
    newest = await log.newest(kind="chunk", wait=SOON)
    async with aclosing(log.follow("first")) as found:
        oldest = (await take(found, 1))[0].offset
    assert oldest > 10

    async with asyncio.timeout(20):
        assert await log.back_to(lambda record: False, newest=newest.offset, records=1) == "first"
        assert await log.back_to(lambda record: False, newest=newest.offset, records=newest.offset - 5) == "first"


async def test_newest_manifest_is_found_behind_chunks_whose_writer_died(open_session, publisher, stream, envelope):
    session = await open_session()
    await publish_version(publisher, stream, envelope, 0)
    await publish_version(publisher, stream, envelope, 1)
    await publisher.publish_many((envelope(stream, b"2/%d" % number) for number in range(5)), window=1)

    newest = await StreamReader(session, stream).newest(wait=SOON)

    assert newest is not None
    assert newest.envelope.body == b"1"


async def test_empty_log_has_no_newest_manifest(open_session, stream):
    session = await open_session()

    assert await StreamReader(session, stream).newest(wait=SOON) is None


async def test_site_that_may_not_read_a_stream_is_told(open_session, vhost, stream):
    session = await open_session(vhost.url("site-a"))

    with pytest.raises(LoginError, match=stream):
        await take(StreamReader(session, stream).follow("first"), 1)


async def test_missing_log_is_named(open_session):
    session = await open_session()

    with pytest.raises(NoSuchQueueError, match=r"fedbus\.models\.gone"):
        await take(StreamReader(session, "fedbus.models.gone").follow("first"), 1)
