"""One job's trouble is never another job's: faults injected into one of two jobs, on a real broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
import torch
from pydantic import SecretStr

from fedbus.aggregator.job.jobs import Jobs
from fedbus.aggregator.job.local_models import local_file
from fedbus.aggregator.settings import AggregatorSettings
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.voice.announcer import Announcer
from fedbus.aggregator.workers import Disk, Worker
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.core.job.membership import Membership
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import StoreError, UnroutableError
from fedbus.export.params_file import read_params
from fedbus.store.ledger import Ledger
from fedbus.store.rows import FollowUp, Recorded
from fedbus.store.spool import Spool
from fedbus.tensors import codec
from tests.acts import lasting

LAYOUT = Layout.of([TensorSpec(name="w", shape=(10,), dtype="float32")])
GOOD, BAD = "lungs", "heart"
SPEC = {
    "task": "t",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "strategy": {"kind": "buffered", "buffer": 1},
    "stop": {"versions": 1000},
}


class FaultyLedger(Ledger):
    """A ledger in which one job's rows go wrong so many times, in whatever way."""

    fault: Exception = RuntimeError("injected")
    facts_of_bad = 0
    chunks_of_bad = 0
    before_chunks_of_bad: Callable[[], object] = staticmethod(lambda: None)
    follow_up_spec: Mapping[str, Any] | None = None

    def end_job(self, job: str, *, follow_up: FollowUp | None, **columns: Any) -> None:
        if follow_up is not None and self.follow_up_spec is not None:
            follow_up = replace(follow_up, spec=self.follow_up_spec)
        super().end_job(job, follow_up=follow_up, **columns)

    def facts(self, job: str, *, after: int = 0) -> list[Recorded]:
        if job == BAD and self.facts_of_bad:
            self.facts_of_bad -= 1
            raise self.fault
        return super().facts(job, after=after)

    def chunks(self, job: str, update_id: str) -> list[tuple[int, int, int]]:
        if job == BAD:
            self.before_chunks_of_bad()
        if job == BAD and self.chunks_of_bad:
            self.chunks_of_bad -= 1
            raise self.fault
        return super().chunks(job, update_id)


class House:
    """The jobs of an aggregator, one site that takes part in both, and what was said to watchers."""

    def __init__(self, *, jobs: Jobs, ledger: FaultyLedger, spool: Spool, site: Publisher, tools: Tools) -> None:
        self.jobs = jobs
        self.ledger = ledger
        self.spool = spool
        self.tools = tools
        self._site = site
        self._sequence = 0

    def submit(self, name: str, **keys: Any) -> None:
        spec = TrainingSpec.parse({"name": name} | SPEC | keys).to_dict()
        self.ledger.add_job(name, spec, message_id=name, submitted_by="ana", state="submitted", at=1.0)
        row = self.ledger.job(name)
        assert row is not None
        self.jobs.start(row)

    async def accept(self, job: str) -> None:
        answer = m.OfferAnswer(site="site-a", job=job, accepted=True, layout=LAYOUT.digest)
        await self.jobs.runners[job].on_answer(answer)

    def state(self, job: str) -> str:
        row = self.ledger.job(job)
        return "" if row is None else row.state

    async def send_chunk(self, job: str, update_id: str, *, index: int, count: int, body: bytes) -> None:
        chunk = m.Chunk(job=job, transfer=update_id, part="update", index=index, count=count, body=body)
        await self._site.publish(Post().from_trainer(chunk, site="site-a"))

    async def publish(self, job: str, *, kind: m.UpdateKind = m.UpdateKind.DELTA) -> str:
        """Send an update; its id."""
        self._sequence += 1
        update_id = f"site-a:0123abcd:{self._sequence}"
        frames = list(codec.encode(torch.full((LAYOUT.numel,), 0.1), LAYOUT, Code.FP32, seed=0))
        for index, frame in enumerate(frames):
            await self.send_chunk(job, update_id, index=index, count=len(frames), body=frame)
        manifest = m.UpdateManifest(
            job=job,
            update_id=update_id,
            kind=kind,
            base_version=0,
            effort=Effort(num_examples=1),
            layout_digest=LAYOUT.digest,
            frames=len(frames),
            body_bytes=sum(map(len, frames)),
            layout=LAYOUT.to_dict() if kind is m.UpdateKind.INITIAL else None,
        )
        await self._site.publish(Post().from_trainer(manifest, site="site-a"))
        return update_id

    async def outcome(self, job: str, update_id: str) -> Mapping[str, Any]:
        """Wait for the receipt of an update."""
        receipt = await until(lambda: self.ledger.receipt(job, update_id))
        return dict(receipt)

    async def begin(self, job: str, **keys: Any) -> None:
        """Submit a job and bring it to where it trains."""
        self.submit(job, **keys)
        await until(lambda: self.state(job) == "waiting for sites")
        await self.accept(job)
        await self.publish(job, kind=m.UpdateKind.INITIAL)
        await until(lambda: self.state(job) == "running")

    async def goes_on(self, job: str) -> None:
        """An update of the job is folded."""
        assert (await self.outcome(job, await self.publish(job)))["outcome"] == "folded"


async def until(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        while not (what := found()):  # noqa: ASYNC110 the ledger tells only when asked
            await asyncio.sleep(0.01)
        return what


async def nobody_keeps(event: m.Event) -> None:
    pass


@asynccontextmanager
async def opened(folder: Path, vhost: Any) -> AsyncIterator[House]:
    """An aggregator's jobs; at the end they must still run."""
    async with AsyncExitStack() as stack:
        ready: asyncio.Future[House] = asyncio.get_running_loop().create_future()
        working = asyncio.create_task(work(folder, vhost, stack, ready))
        await asyncio.wait([ready, working], return_when=asyncio.FIRST_COMPLETED)
        try:
            yield await (ready if ready.done() else working)  # type: ignore[misc]
            assert not working.done(), "the task group of all jobs was cancelled"
        finally:
            working.cancel()
            (error,) = await asyncio.gather(working, return_exceptions=True)
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0]


async def work(folder: Path, vhost: Any, stack: AsyncExitStack, ready: asyncio.Future[House]) -> None:
    async def session(login: str, name: str) -> Session:
        return await stack.enter_async_context(Session(vhost.url(login), name=name))

    control, bulk_in = await session("aggregator", "control"), await session("aggregator", "updates")
    bulk_out, site = await session("aggregator", "models"), await session("site-a", "site")
    await declare(control, t.FEDERATION)
    ledger, disk = stack.enter_context(FaultyLedger(folder / "ledger.sqlite3")), Disk()
    store = stack.enter_context(Worker("store", disk))
    post = Post()
    tools = Tools(
        session="s",
        ledger=ledger,
        store=store,
        compute=store,
        saving=store,
        post=post,
        disk=disk,
        announcer=Announcer(Publisher(control), post=post, dead=Publisher(control), keep=nobody_keeps),
        membership=Membership(),
        score_timeout_s=5.0,
        checkpoint_interval_s=5.0,
    )
    join = m.Join(site="site-a", session="1", tasks=("t",), fedbus_version="1")
    tools.membership.joined(join, now=time.monotonic())
    spool = Spool(folder / "spool")
    settings = AggregatorSettings(
        state_dir=folder, broker_url=SecretStr(vhost.url("aggregator")), settle_s=0.05, quiet_s=0.3
    )
    async with asyncio.TaskGroup() as group:
        jobs = Jobs(
            settings, tools=tools, spool=spool, control=control, bulk_in=bulk_in, bulk_out=bulk_out, group=group
        )
        group.create_task(tools.announcer.run())
        ready.set_result(
            House(jobs=jobs, ledger=ledger, spool=spool, site=Publisher(site, routes_return=timedelta(0)), tools=tools)
        )


# ------------------------------------------------------------------ what goes wrong in one job


async def test_an_update_id_used_in_two_jobs_is_two_updates(tmp_path: Path, vhost: Any) -> None:
    async with opened(tmp_path, vhost) as house:
        # given a site that takes part in two jobs, and an update of one of them that is folded
        for job in (GOOD, BAD):
            await house.begin(job)
        update_id = await house.publish(GOOD)
        assert (await house.outcome(GOOD, update_id))["outcome"] == "folded"
        # when a chunk of the same update, and garbage, comes for the other one
        await house.send_chunk(BAD, update_id, index=1, count=2, body=b"not a frame")
        await house.goes_on(BAD)
        # then nothing of the first has changed, and it goes on
        assert [index for index, _, _ in house.ledger.chunks(GOOD, update_id)] == [0]
        await house.goes_on(GOOD)


BODY_FAULTS = [RuntimeError("bug"), MemoryError("no room"), OverflowError("too far"), StoreError("short file")]


@pytest.mark.parametrize("fault", BODY_FAULTS, ids=lambda fault: type(fault).__name__)
async def test_an_update_whose_body_cannot_be_read_is_refused_whatever_the_reason(
    tmp_path: Path, vhost: Any, fault: Exception
) -> None:
    async with opened(tmp_path, vhost) as house:
        await house.begin(BAD)
        house.ledger.fault, house.ledger.chunks_of_bad = fault, 1
        receipt = await house.outcome(BAD, await house.publish(BAD))
        assert receipt["outcome"] == "refused"
        assert str(fault) in receipt["reason"]
        await house.goes_on(BAD)


async def test_initial_params_that_cannot_be_read_are_refused_and_the_other_job_goes_on(
    tmp_path: Path, vhost: Any
) -> None:
    async with opened(tmp_path, vhost) as house:
        await house.begin(GOOD)
        house.submit(BAD)
        await until(lambda: house.state(BAD) == "waiting for sites")
        await house.accept(BAD)
        house.ledger.fault, house.ledger.chunks_of_bad = RuntimeError("bug"), 1
        receipt = await house.outcome(BAD, await house.publish(BAD, kind=m.UpdateKind.INITIAL))
        assert (receipt["outcome"], "bug" in receipt["reason"]) == ("refused", True)
        await house.goes_on(GOOD)


async def test_a_job_in_which_something_goes_wrong_is_taken_up_again_and_goes_on(tmp_path: Path, vhost: Any) -> None:
    async with opened(tmp_path, vhost) as house:
        for job in (GOOD, BAD):
            await house.begin(job)
        # when something goes wrong in one of two jobs
        before = house.jobs.runners[BAD]
        before.broke(RuntimeError("injected"))
        # then the other goes on at once, and the one is taken up where the ledger says it is
        await house.goes_on(GOOD)
        await until(lambda: house.jobs.runners[BAD] is not before)
        await until(lambda: house.jobs.runners[BAD].life.state is m.JobState.RUNNING)
        await house.accept(BAD)
        await house.goes_on(BAD)


async def test_a_job_that_cannot_be_taken_up_has_failed_with_the_reason_and_the_other_goes_on(
    tmp_path: Path, vhost: Any
) -> None:
    async with opened(tmp_path, vhost) as house:
        for job in (GOOD, BAD):
            await house.begin(job)
        # when something is wrong with one job for good
        house.ledger.fault, house.ledger.facts_of_bad = RuntimeError("injected for good"), 10**6
        house.jobs.runners[BAD].broke(RuntimeError("injected"))
        # then it has failed at last, with the reason, and meanwhile the other one goes on
        await house.goes_on(GOOD)
        await until(lambda: house.state(BAD) == "failed")
        row = house.ledger.job(BAD)
        assert row is not None
        assert "injected for good" in row.reason
        await house.goes_on(GOOD)


@pytest.mark.parametrize("broken", [False, True])
async def test_the_job_that_follows_runs_or_has_failed_and_harms_no_end(
    broken: bool, tmp_path: Path, vhost: Any
) -> None:
    async with opened(tmp_path, vhost) as house:
        # given a training in which a site has left its model
        await house.begin(GOOD, evaluate_local=True, stop={"versions": 1})
        left = local_file(tmp_path / "jobs" / GOOD, "site-a")
        left.parent.mkdir(parents=True)
        left.write_bytes(b"its model")
        house.ledger.follow_up_spec = {"kind": "of-a-later-release"} if broken else None
        # when it ends
        runner = house.jobs.runners[GOOD]
        await house.publish(GOOD)
        await until(lambda: house.state(GOOD) == "finishing")
        await runner.on_score(m.ScoreAnswer(site="site-a", job=GOOD, version=1, metrics={"auc": 0.5}, num_examples=9))
        await until(lambda: house.state(GOOD) == "finished")
        # then what follows it is a job of its own: it comes as far as to read that model, unless nobody knows its kind
        row = house.ledger.job(GOOD)
        assert row is not None
        assert row.result is not None
        follow_up = row.result["follow_up"]
        await until(lambda: house.state(follow_up) == "failed")
        followed = house.ledger.job(follow_up)
        assert followed is not None
        assert ("no safetensors file" in followed.reason) != broken
        # and it is closed as any other
        await until(lambda: not house.jobs.is_open(GOOD))


async def test_a_job_that_is_given_up_leaves_the_version_that_it_had(tmp_path: Path, vhost: Any) -> None:
    async with opened(tmp_path, vhost) as house:
        # given a job at version 1
        await house.begin(BAD)
        await house.goes_on(BAD)
        await until(lambda: house.ledger.last_published(BAD) == 1)
        # when something goes wrong in it again and again
        while house.state(BAD) != "failed":
            runner = house.jobs.runners[BAD]
            await until(lambda runner=runner: runner.life.state is m.JobState.RUNNING)
            runner.broke(RuntimeError("injected"))
            await until(lambda runner=runner: house.jobs.runners.get(BAD) is not runner)
            await until(lambda: house.state(BAD) == "failed" or not house.jobs.runners[BAD].failing)
        # then its version is there to be used
        row = house.ledger.job(BAD)
        assert row is not None
        assert row.reason == "again and again something went wrong in the aggregator: RuntimeError: injected"
        assert row.result is not None
        assert row.result["version"] == 1
        assert read_params(Path(row.result["exported"]), LAYOUT).shape == (LAYOUT.numel,)


async def test_a_job_that_a_person_aborts_while_it_is_taken_up_again_is_aborted(tmp_path: Path, vhost: Any) -> None:
    async with opened(tmp_path, vhost) as house:
        await house.begin(BAD)
        runner = house.jobs.runners[BAD]
        runner.broke(RuntimeError("injected"))
        runner.abort("aborted by ana")
        await until(lambda: house.state(BAD) == "aborted")


async def test_a_job_that_computes_for_long_holds_up_no_other(tmp_path: Path, vhost: Any) -> None:
    async with opened(tmp_path, vhost) as house:
        for job in (GOOD, BAD):
            await house.begin(job)
        # given a job whose update takes for ever to read
        held, begun = threading.Event(), threading.Event()
        house.ledger.before_chunks_of_bad = lambda: (begun.set(), held.wait())
        await house.publish(BAD)
        await until(begun.is_set)
        # then the other one goes on
        try:
            await house.goes_on(GOOD)
        finally:
            held.set()


async def test_an_update_of_a_site_that_has_not_accepted_the_job_comes_back(tmp_path: Path, vhost: Any) -> None:
    async with opened(tmp_path, vhost) as house:
        house.submit(BAD)
        await until(lambda: house.state(BAD) == "waiting for sites")
        with pytest.raises(UnroutableError):
            await house.publish(BAD, kind=m.UpdateKind.INITIAL)
        assert house.ledger.update_states(BAD) == {}


async def test_what_a_site_has_sent_counts_after_a_restart_before_the_site_has_answered_again(
    tmp_path: Path, vhost: Any
) -> None:
    # given a site that has accepted, and an aggregator that ended before its update came
    async with opened(tmp_path, vhost) as house:
        await house.begin(BAD)
        (row,) = house.ledger.jobs()
    # when a new one takes the job up, and the site has said nothing to it yet
    async with opened(tmp_path, vhost) as house:
        house.jobs.start(row)
        await until(lambda: BAD in house.jobs.runners and house.jobs.runners[BAD].life.state is m.JobState.RUNNING)
        assert house.jobs.runners[BAD].life.accepted_sites == frozenset()
        # then its update is folded
        await house.goes_on(BAD)


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_site_cannot_have_its_message_copied_into_the_queue_of_another_job(
    tmp_path: Path, vhost: Any, header: str
) -> None:
    async with opened(tmp_path, vhost) as house:
        for job in (GOOD, BAD):
            await house.begin(job)
        # when a site sends a chunk that names one job to the queue of the other, and asks for a copy to the first
        update_id = "site-a:0123abcd:99"
        headers = {"schema": 1, "job": GOOD, "transfer": update_id, "part": "update", "index": 0, "count": 1}
        properties = pika.BasicProperties(
            type="chunk", user_id="site-a", message_id="copied", headers=headers | {header: [f"{GOOD}.site-a"]}
        )
        await asyncio.to_thread(publish_raw, vhost.url("site-a"), "fedbus.updates", f"{BAD}.site-a", properties)
        # then both lie in fedbus.dead, although the broker checks no permission for the copy
        async with (
            Session(vhost.url("aggregator"), name="test") as session,
            Consumer(session, t.DEAD, prefetch=2) as dead,
        ):
            letters = aiter(dead)
            reasons = [str((await anext(letters)).envelope.headers["reason"]) for _ in range(2)]
        assert all("CC" in reason or "must agree" in reason or "its own is" in reason for reason in reasons)
        # and neither job has heard of it
        for job in (GOOD, BAD):
            await house.goes_on(job)
            assert update_id not in house.ledger.update_states(job)


def publish_raw(url: str, exchange: str, key: str, properties: pika.BasicProperties) -> None:
    connection = pika.BlockingConnection(lasting(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"not a frame", properties, mandatory=True)
    connection.close()
