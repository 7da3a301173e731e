"""When aggregator or model log went on without a site: what awaits its receipt is sent again."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fedbus.audit.writer import NoAudit
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.stream import Record
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code, build_frame
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import ProtocolError, UnroutableError
from fedbus.site.door import Lane
from fedbus.site.job import assignment
from fedbus.site.job.worker import JobWorker
from fedbus.site.settings import SiteSettings
from fedbus.site.terms import Terms
from fedbus.store.outbox import Outbox
from fedbus.training import protocol as p

POST = Post()
FRAME = build_frame(Code.FP32, 0, 10, [struct.pack("<10f", *range(10))])
SPEC = TrainingSpec.parse(
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
        self.newest_manifest: Envelope | None = None
        self.followed_from: list[object] = []
        self.looked_back: list[int] = []
        self.refusals = 0
        self.pauses: list[float] = []
        self.streams: list[str] = []

    def reader_of(self, stream: str) -> Broker:
        self.streams.append(stream)
        return self

    async def newest(self) -> Record | None:
        return None if self.newest_manifest is None else Record(envelope=self.newest_manifest, offset=99)

    async def follow(self, start: object) -> AsyncIterator[Record]:
        self.followed_from.append(start)
        for offset in count(10):
            yield Record(envelope=await self.log.get(), offset=offset)

    async def back_to(self, is_before: Callable[[Envelope], bool], *, newest: int, records: int) -> int:
        assert newest == 99
        self.looked_back.append(records)
        return 70

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

    def has(self, version: int, *, snapshot_version: int) -> None:
        """What the newest manifest of the log says; its snapshot begins 16 records before it."""
        manifest = m.VersionManifest(
            job="heart",
            version=version,
            digest="d",
            delta=m.Part(frames=1, body_bytes=1),
            snapshot=None,
            snapshot_version=snapshot_version,
            snapshot_at=1000.0,
            snapshot_back=16,
        )
        self.newest_manifest = dataclasses.replace(POST.to_model_log(manifest), user_id="aggregator")

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
            self.log.put_nowait(dataclasses.replace(POST.to_model_log(message), user_id="aggregator"))


class Deaf:
    """A trainer that never answers."""

    pid = 1

    async def ask(self, command: object) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def start_deaf(on_progress: object, *, threads: int) -> AsyncIterator[Deaf]:
    yield Deaf()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 the worker says it in plain attributes
            await asyncio.sleep(0)


async def idle() -> None:
    """Let every task go on until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def working(
    folder: Path, broker: Broker, *, ends: asyncio.Event | None = None, **settings_of_it: Any
) -> AsyncIterator[JobWorker]:
    """A worker whose outbox holds an update of an earlier process. `ends` is set when its work ends by an error."""
    settings = SiteSettings(site_name="mercy", site_data=folder, site_state_dir=folder)
    outbox = Outbox(folder / "jobs" / "heart" / "outbox", "mercy")
    update_id = outbox.next_id()
    outbox.frames_path(update_id).write_bytes(FRAME)
    trained = p.Trained(base_version=0, frame_sizes=(len(FRAME),), effort=Effort(num_examples=3, steps=1, seconds=0.1))
    manifest = assignment.delta_manifest("heart", update_id, trained, layout_digest="1a")
    outbox.commit(update_id, manifest, (len(FRAME),))
    worker = JobWorker(
        "heart",
        SPEC,
        settings=settings,
        reader=broker.reader_of,  # type: ignore[arg-type]
        post=POST,
        lane=Lane(
            "heart",
            site="mercy",
            post=POST,
            publisher=broker,  # type: ignore[arg-type]
            audit=NoAudit(),
            terms=lambda: Terms(submitter="submitter", task="digits", task_version="fedbus 1", policy="ab"),
        ),
        say=broker.say,
        start=start_deaf,
        sleep=broker.pause,
        **settings_of_it,
    )
    task = asyncio.create_task(worker.run())
    if ends is not None:
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() is None else ends.set())
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


async def test_files_that_cannot_be_used_when_a_receipt_comes_end_this_job_and_not_the_daemon(tmp_path: Path) -> None:
    broker, ends = Broker(), asyncio.Event()
    async with working(tmp_path, broker, ends=ends) as worker:
        # given a job whose folder is away, and a file in its place
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: len(broker.published) == 2)
        (tmp_path / "jobs").rename(tmp_path / "moved")
        (tmp_path / "jobs").touch()
        # when the receipt of its update comes
        receipt = m.Receipt(job="heart", update_id=broker.published[1], outcome=m.Outcome.FOLDED)
        with pytest.raises(OSError, match="Not a directory") as raised:
            await worker.on_control(receipt)
        worker.fail(raised.value)
        worker.fail(raised.value)  # as another message may, before the work has ended
        # then the work for this job ends with the error, for the daemon to take it up again
        await asyncio.wait_for(ends.wait(), 30)


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


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "jobs" / "heart" / "model").iterdir())


async def has_followed_to_version_2(folder: Path) -> None:
    """An earlier process held snapshot 0 and the deltas to version 2, whose manifest had offset 15."""
    broker = Broker()
    async with working(folder, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        for version, part in ((0, "snapshot"), (1, "delta"), (2, "delta")):
            broker.version(version, part)
        await until(lambda: worker.activity.version == 2)


async def test_a_site_that_comes_back_reads_on_from_what_it_holds(tmp_path: Path) -> None:
    # given versions 3 and 4 since then, and no newer snapshot
    await has_followed_to_version_2(tmp_path)
    broker = Broker()
    broker.has(4, snapshot_version=0)
    async with working(tmp_path, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: bool(broker.followed_from))
        # then it reads what comes after version 2, and trains from nothing older than version 4
        assert broker.followed_from == [16]
        broker.version(3, "delta")
        await idle()
        assert worker.activity.version == -1
        broker.version(4, "delta")
        await until(lambda: worker.activity.version == 4)
    assert held(tmp_path) == [
        "held.json",
        "v00000000.snapshot",
        *(f"v0000000{version}.delta" for version in (1, 2, 3, 4)),
    ]
    assert not broker.said


async def test_a_site_that_comes_back_with_the_newest_version_goes_on_at_once(tmp_path: Path) -> None:
    await has_followed_to_version_2(tmp_path)
    broker = Broker()
    broker.has(2, snapshot_version=0)
    async with working(tmp_path, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: worker.activity.version == 2)
    assert broker.followed_from == [16]


@pytest.mark.parametrize(
    ("newest", "snapshot_version", "start"),
    [pytest.param(9, 5, 70, id="newer snapshot"), pytest.param(1, 0, "first", id="another log")],
)
async def test_a_site_that_comes_back_takes_the_snapshot_when_that_is_later_in_the_log(
    tmp_path: Path, newest: int, snapshot_version: int, start: object
) -> None:
    await has_followed_to_version_2(tmp_path)
    broker = Broker()
    broker.has(newest, snapshot_version=snapshot_version)
    async with working(tmp_path, broker) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: bool(broker.followed_from))
        assert broker.followed_from == [start]
        assert broker.looked_back == ([] if start == "first" else [22])
        assert held(tmp_path) == []
        assert worker.activity.version == -1


async def test_a_site_to_which_nothing_comes_asks_for_a_snapshot_and_says_so(tmp_path: Path) -> None:
    # given a model log that holds nothing a site can begin with
    broker = Broker()
    async with working(tmp_path, broker, patience=timedelta(milliseconds=20)) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        # when nothing comes, then it asks, and again when that led to nothing
        await until(lambda: len(broker.said) == 2)
        assert [type(said) for said in broker.said] == [m.ResyncRequest] * 2
        assert "no version is held" in broker.said[0].reason
        assert "asked for a snapshot" in worker.activity.detail
        # and when the snapshot is there, that is over
        broker.version(3, "snapshot")
        await until(lambda: worker.activity.version == 3)
        assert worker.activity.detail == ""


async def test_a_site_to_which_a_large_model_comes_slowly_asks_for_nothing(tmp_path: Path) -> None:
    broker = Broker()
    patience = timedelta(milliseconds=100)
    async with working(tmp_path, broker, patience=patience) as worker:
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await until(lambda: bool(broker.followed_from))
        # when a chunk comes now and then, for three times as long as it would wait for nothing
        chunk = m.Chunk(job="heart", transfer="0", part="snapshot", index=0, count=9, body=FRAME)
        for _ in range(30):
            broker.log.put_nowait(dataclasses.replace(POST.to_model_log(chunk), user_id="aggregator"))
            await asyncio.sleep(0.01)
    assert broker.said == []


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


@pytest.mark.parametrize(
    ("log", "stream"),
    [("fedbus.models.heart.0a1b", "fedbus.models.heart.0a1b"), ("", "fedbus.models.heart")],
    ids=["its secret name", "an aggregator of an earlier release"],
)
async def test_the_model_log_that_the_start_names_is_followed(tmp_path: Path, log: str, stream: str) -> None:
    broker = Broker()
    async with working(tmp_path, broker) as worker:
        for session in ("first", "second"):
            await worker.on_control(m.JobStarted(job="heart", session=session, log=log))
        await until(lambda: bool(broker.followed_from))
    assert broker.streams == [stream]


@pytest.mark.parametrize(
    "log", ["fedbus.models.lung.0a1b", "fedbus.models.hearts", "fedbus.site.ucsf", "fedbus.models"]
)
async def test_a_start_that_names_anything_but_a_log_of_its_job_is_refused(tmp_path: Path, log: str) -> None:
    broker = Broker()
    async with working(tmp_path, broker) as worker:
        with pytest.raises(ProtocolError, match="no model log of job heart"):
            await worker.on_control(m.JobStarted(job="heart", session="first", log=log))
    assert broker.streams == []


async def test_a_receipt_that_comes_while_its_update_is_sent_again_is_no_trouble(tmp_path: Path) -> None:
    broker, ends = Broker(), asyncio.Event()
    broker.line_is_up.clear()
    async with working(tmp_path, broker, ends=ends) as worker:
        # given an update that is about to be sent again
        await worker.on_control(m.JobStarted(job="heart", session="first"))
        await idle()
        # when its receipt comes first, and with that its file goes
        update_id = next(iter(worker._outbox.waiting))
        receipt = m.Receipt(job="heart", update_id=str(update_id), outcome=m.Outcome.FOLDED)
        await worker.on_control(receipt)
        broker.line_is_up.set()
        await idle()
        # then the work for the job goes on
        assert not ends.is_set()
    assert broker.published == []
