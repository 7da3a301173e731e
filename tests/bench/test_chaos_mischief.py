"""Messages that come again on a real broker: the same ones, twice, in another order, from the login they are of."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fedbus.bench.chaos import mischief
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.stream import StreamReader
from fedbus.bus.topology import (
    ModelLogSize,
    Topology,
    job_models,
    job_updates,
    models_stream,
    site_queue,
    updates_from,
    updates_queue,
)
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.store.outbox import Outbox

POST = Post()
JOB = "heart"
FRAMES = (b"one", b"second", b"3")


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """The outbox of site-a with one update of three frames."""
    outbox = Outbox(tmp_path / "outbox", "site-a")
    update_id = outbox.next_id()
    outbox.frames_path(update_id).write_bytes(b"".join(FRAMES))
    manifest = m.UpdateManifest(
        job=JOB,
        update_id=str(update_id),
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest="d",
        frames=len(FRAMES),
        body_bytes=sum(map(len, FRAMES)),
    )
    outbox.commit(update_id, manifest, tuple(map(len, FRAMES)))
    return outbox


async def take(url: str, queue: str, count: int) -> list[Envelope]:
    async with Session(url, name="test") as session, Consumer(session, queue, prefetch=count) as deliveries:
        return [(await anext(deliveries)).envelope for _ in range(count)]


async def test_updates_come_twice_with_the_manifest_first(vhost: Any, outbox: Outbox, tmp_path: Path) -> None:
    # given
    aggregator = vhost.url("aggregator")
    async with Session(aggregator, name="declare") as session:
        await declare(session, job_updates(JOB) + Topology(bindings=(updates_from(JOB, "site-a"),)))
    # when
    url = vhost.url("site-a")
    sent = await mischief.repeat_updates(
        mischief.Login(url=url), tmp_path / "outbox", JOB, "site-a", rng=random.Random(1)
    )
    # then
    came = await take(aggregator, updates_queue(JOB), sent)
    (update_id,) = map(str, outbox.waiting)
    for half in (came[:4], came[4:]):
        assert (half[0].type, half[0].message_id, half[0].user_id) == ("update", update_id, "site-a")
        chunks = {POST.from_envelope(envelope).index: envelope.body for envelope in half[1:]}  # type: ignore[union-attr]
        assert chunks == dict(enumerate(FRAMES))


async def test_entries_that_go_or_are_half_written_are_left_out(vhost: Any, outbox: Outbox, tmp_path: Path) -> None:
    (update_id,) = outbox.waiting
    outbox.frames_path(update_id).write_bytes(b"only a part")
    (tmp_path / "outbox" / "00000007.json").write_text("{")
    url = vhost.url("site-a")
    assert (
        await mischief.repeat_updates(mischief.Login(url=url), tmp_path / "outbox", JOB, "site-a", rng=random.Random(1))
        == 0
    )


async def test_records_of_the_model_log_come_again(vhost: Any) -> None:
    # given a model log with five chunks
    url = vhost.url("aggregator")
    chunks = [m.Chunk(job=JOB, transfer="1", part="delta", index=i, count=5, body=b"%d" % i) for i in range(5)]
    async with Session(url, name="write") as session:
        await declare(session, job_models(JOB, ModelLogSize(snapshot_bytes=5, delta_bytes=5, snapshot_every=1)))
        await Publisher(session).publish_many(map(POST.to_model_log, chunks))
        # when
        assert (
            await mischief.repeat_versions(mischief.Login(url=url), JOB, models_stream(JOB), rng=random.Random(1)) == 5
        )
        # then
        log = StreamReader(session, models_stream(JOB)).follow("first")
        came = [POST.from_envelope((await anext(log)).envelope) for _ in range(10)]
        await log.aclose()
    assert came[:5] == chunks
    assert came[5:] != chunks
    assert sorted(came[5:], key=lambda chunk: chunk.index) == chunks  # type: ignore[union-attr]


async def test_receipts_come_twice_and_the_roll_is_called(vhost: Any) -> None:
    receipt = m.Receipt(job=JOB, update_id="site-a:0123abcd:1", outcome=m.Outcome.REFUSED, reason="too old")
    sent = await mischief.repeat_receipts(mischief.Login(url=vhost.url("aggregator")), [receipt], rng=random.Random(1))
    came = [POST.from_envelope(e) for e in await take(vhost.url("site-a"), site_queue("site-a"), sent)]
    assert sorted(came, key=repr) == sorted([receipt, receipt, m.RollCall(session="mischief")], key=repr)
