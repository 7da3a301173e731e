"""When aggregator or model log went on without a site: what awaits its receipt is sent again."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fedbus.bus import mail
from fedbus.bus.envelope import Envelope
from fedbus.bus.model_log import Record
from fedbus.core import messages as m
from fedbus.core.frames import Code, build_frame
from fedbus.core.jobspec import JobSpec
from fedbus.errors import UnroutableError
from fedbus.store.outbox import Outbox
from fedbus.training import protocol as p
from services.site import assignment
from services.site.job_worker import JobWorker
from services.site.settings import SiteSettings

FRAME = build_frame(Code.FP32, 0, 10, [struct.pack("<10f", *range(10))])
SPEC = JobSpec.parse(
    {
        "name": "heart",
        "task": "t",
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        "stop": {"versions": 9},
    }
)


class Broker:
    """The model log as a queue, and what was published."""

    def __init__(self) -> None:
        self.log: asyncio.Queue[Envelope] = asyncio.Queue()
        self.published: list[str] = []
        self.said: list[Any] = []
        self.line_is_up = asyncio.Event()
        self.line_is_up.set()
        self.refusals = 0
        self.pauses: list[float] = []

    async def newest(self) -> None:
        return None

    async def follow(self, start: object) -> AsyncIterator[Record]:
        while True:
            yield Record(envelope=await self.log.get(), offset=0)

    async def publish_many(self, envelopes: Any) -> None:
        await self.line_is_up.wait()
        if self.refusals:
            self.refusals -= 1
            raise UnroutableError("no queue takes it")
        self.published += [envelope.message_id for envelope in envelopes]

    async def publish(self, envelope: Envelope) -> None:
        self.published.append(envelope.message_id)

    async def say(self, message: Any) -> None:
        self.said.append(message)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def version(self, version: int, part: str) -> None:
        """A version with one frame arrives."""
        chunk = m.Chunk(job="heart", transfer=str(version), part=part, index=0, count=1, body=FRAME)
        size = m.Part(frames=1, body_bytes=len(FRAME))
        manifest = m.VersionManifest(
            job="heart",
            version=version,
            digest="d",
            delta=size if part == "delta" else None,
            snapshot=size if part == "snapshot" else None,
            snapshot_version=0,
            snapshot_at=0.0,
            layout={"tensors": [["w", [10], "float32"]]} if part == "snapshot" else None,
        )
        for message in (chunk, manifest):
            self.log.put_nowait(dataclasses.replace(mail.to_model_log(message), user_id="aggregator"))


class Deaf:
    """A trainer that never answers."""

    pid = 1

    async def ask(self, command: object) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def start_deaf(on_progress: object, *, threads: int) -> AsyncIterator[Deaf]:
    yield Deaf()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 the worker says it in plain attributes
            await asyncio.sleep(0)


async def idle() -> None:
    """Let every task go on until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def working(folder: Path, broker: Broker) -> AsyncIterator[JobWorker]:
    """A worker whose outbox holds update 0 of an earlier process."""
    settings = SiteSettings(site_name="mercy", site_data=folder, site_state_dir=folder)
    outbox = Outbox(folder / "jobs" / "heart" / "outbox", "mercy")
    update_id = outbox.next_id()
    outbox.frames_path(update_id).write_bytes(FRAME)
    trained = p.Trained(base_version=0, frame_sizes=(len(FRAME),), num_examples=3, steps=1, seconds=0.1)
    manifest = assignment.delta_manifest("heart", update_id, trained, layout_digest="1a")
    outbox.commit(update_id, dataclasses.asdict(manifest), (len(FRAME),))
    worker = JobWorker(
        "heart",
        SPEC,
        settings=settings,
        reader=broker,  # type: ignore[arg-type]
        uploads=broker,  # type: ignore[arg-type]
        say=broker.say,
        start=start_deaf,
        sleep=broker.pause,
    )
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_aggregator_that_has_restarted_gets_what_awaits_its_receipt_once(tmp_path: Path) -> None:
    broker = Broker()
    async with working(tmp_path, broker) as worker:
        for session in ("first", "first", "second"):
            await worker.on_control(m.JobStarted(job="heart", session=session))
        await until(lambda: len(broker.published) == 4)
        await asyncio.sleep(0.01)
    assert len(broker.published) == 4
    assert broker.published[:2] == broker.published[2:]


async def test_an_update_that_the_broker_does_not_take_is_sent_again_after_a_pause(tmp_path: Path) -> None:
    broker = Broker()
    broker.refusals = 2
    async with working(tmp_path, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: len(broker.published) == 2)
    assert broker.pauses == [10.0, 10.0]


async def test_an_aggregator_that_misses_chunks_gets_all_of_the_update_again(tmp_path: Path) -> None:
    broker = Broker()
    async with working(tmp_path, broker) as worker:
        # given an update that was sent
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: len(broker.published) == 2)
        update_id = broker.published[1]
        # when the aggregator asks for it
        await worker.on_control(m.ResendRequest(job="heart", update_id=update_id))
        await until(lambda: len(broker.published) == 4)
        # then chunks and manifest are sent again
        assert broker.published[2:] == broker.published[:2]
        # and no more once its receipt has come
        await worker.on_control(m.Receipt(job="heart", update_id=update_id, outcome=m.Outcome.FOLDED))
        await worker.on_control(m.ResendRequest(job="heart", update_id=update_id))
        await worker.on_control(m.JobStarted(job="heart", session="second"))
        await idle()
    assert len(broker.published) == 4


@pytest.mark.parametrize(("outcome", "residual"), [(m.Outcome.FOLDED, ["after"]), (m.Outcome.REFUSED, [])])
async def test_what_an_update_left_out_stays_unless_it_is_refused(
    tmp_path: Path, outcome: m.Outcome, residual: list[str]
) -> None:
    broker = Broker()
    async with working(tmp_path, broker) as worker:
        # given an update that left a residual
        folder = tmp_path / "jobs" / "heart" / "outbox"
        (update_id,) = Outbox(folder, "mercy").waiting
        (folder / "00000000.residual").write_text("after")
        # when its receipt comes
        await worker.on_control(m.Receipt(job="heart", update_id=str(update_id), outcome=outcome))
    # then that is what the next one starts from, or not
    outbox = Outbox(folder, "mercy")
    assert [path.read_text() for path in outbox.residual_source(outbox.next_id()).add] == residual


async def test_an_update_that_is_on_its_way_is_not_queued_once_more(tmp_path: Path) -> None:
    # given a line so slow that the aggregator asks while the update is being sent
    broker = Broker()
    broker.line_is_up.clear()
    async with working(tmp_path, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        (update_id,) = Outbox(tmp_path / "jobs" / "heart" / "outbox", "mercy").waiting
        for _ in range(5):
            await worker.on_control(m.ResendRequest(job="heart", update_id=str(update_id)))
        # when the line recovers, then it is sent once
        broker.line_is_up.set()
        await until(lambda: len(broker.published) == 2)
        await idle()
    assert len(broker.published) == 2


async def test_versions_that_are_lost_may_have_named_a_receipt_so_the_update_is_sent_again(tmp_path: Path) -> None:
    # given a site that follows the model log and has sent its update
    broker = Broker()
    async with working(tmp_path, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        broker.version(0, "snapshot")
        broker.version(1, "delta")
        await until(lambda: worker.activity.version == 1)
        await until(lambda: len(broker.published) == 2)
        # when it was cut off for so long that retention has overtaken it
        broker.version(7, "delta")
        broker.version(8, "snapshot")
        await until(lambda: worker.activity.version == 8)
        # then it asks for a snapshot, and what still has no receipt is sent again
        await until(lambda: len(broker.published) == 4)
    assert [type(said) for said in broker.said] == [m.ResyncRequest]
    assert broker.published[:2] == broker.published[2:]
