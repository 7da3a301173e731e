"""Streams on a real broker: resumed at the next offset, and the newest manifest found by a late joiner."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from fedbus.bus.model_log import ModelLogReader
from fedbus.bus.publisher import Publisher
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

    async with aclosing(ModelLogReader(proxied, stream).follow("first")) as records:
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
    async with aclosing(ModelLogReader(session, stream).follow("first")) as records:
        before = await take(records, 7)

    async with aclosing(ModelLogReader(session, stream).follow(before[-1].offset + 1)) as records:
        after = await take(records, 13)

    assert len({record.envelope.body for record in before + after}) == 20
    assert after[0].offset > before[-1].offset


async def test_next_skips_what_is_there_already(open_session, publisher, stream, envelope):
    session = await open_session()
    await publisher.publish(envelope(stream, b"old"))

    async with aclosing(ModelLogReader(session, stream).follow("next")) as records:
        first = asyncio.ensure_future(anext(records))
        async with asyncio.timeout(20):
            while not first.done():  # one that was published before the reader was there is old, too
                await publisher.publish(envelope(stream, b"new"))
                await asyncio.wait({first}, timeout=0.2)
        assert first.result().envelope.body == b"new"


async def test_unread_records_stay_at_the_broker(proxied, proxy, publisher, stream, envelope):
    await publisher.publish_many((envelope(stream, bytes(100_000)) for _ in range(30)), window=1)

    async with aclosing(ModelLogReader(proxied, stream, prefetch=2).follow("first")) as records:
        await take(records, 1)
        held = asyncio.ensure_future(asyncio.Event().wait())
        await asyncio.wait({held}, timeout=0.2)
        held.cancel()

    assert proxy.passed_bytes < 400_000


async def test_late_joiner_finds_the_newest_manifest_and_its_version(open_session, publisher, stream, envelope):
    session = await open_session()
    for version in range(4):
        began = datetime.now(UTC)
        await publish_version(publisher, stream, envelope, version)
    log = ModelLogReader(session, stream)

    newest = await log.newest()

    assert newest is not None
    assert newest.envelope.body == b"3"
    async with aclosing(log.follow(began - timedelta(seconds=1))) as records:
        seen = {(await take(records, 1))[0].envelope.body for _ in range(6)}
        while b"3" not in seen:
            seen.add((await take(records, 1))[0].envelope.body)
    assert {b"3/%d" % number for number in range(5)} <= seen


async def test_newest_manifest_is_found_behind_chunks_whose_writer_died(open_session, publisher, stream, envelope):
    session = await open_session()
    await publish_version(publisher, stream, envelope, 0)
    await publish_version(publisher, stream, envelope, 1)
    await publisher.publish_many((envelope(stream, b"2/%d" % number) for number in range(5)), window=1)

    newest = await ModelLogReader(session, stream).newest(wait=SOON)

    assert newest is not None
    assert newest.envelope.body == b"1"


async def test_empty_log_has_no_newest_manifest(open_session, stream):
    session = await open_session()

    assert await ModelLogReader(session, stream).newest(wait=SOON) is None


async def test_site_that_may_not_read_a_stream_is_told(open_session, vhost, stream):
    session = await open_session(vhost.url("site-a"))

    with pytest.raises(LoginError, match=stream):
        await take(ModelLogReader(session, stream).follow("first"), 1)


async def test_missing_log_is_named(open_session):
    session = await open_session()

    with pytest.raises(NoSuchQueueError, match=r"fedbus\.models\.gone"):
        await take(ModelLogReader(session, "fedbus.models.gone").follow("first"), 1)
