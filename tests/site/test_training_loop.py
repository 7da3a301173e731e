"""The training loop with a trainer whose every answer is written here: what it asks, in which order, why it waits."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from fedbus.core.job.seeds import training_seed
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code, build_frame
from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DiskFullError
from fedbus.site import places as site_places
from fedbus.site.job import loop as training_loop
from fedbus.site.job.loop import TrainingLoop
from fedbus.site.job.model_files import ModelFiles
from fedbus.site.job.score_duty import ScoreDuty
from fedbus.site.places import Places
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerDiedError, TrainerFailedError
from fedbus.store.outbox import Entry, Outbox
from fedbus.training import protocol as p
from fedbus.training.sayable import LONGEST_SAID

LAYOUT = {"tensors": [["w", [10], "float32"]]}
OPENED = p.Opened(device="cpu", layout_digest="1a", numel=10)
FRAME = build_frame(Code.FP32, 0, 10, [struct.pack("<10f", *range(10))])


def write(path: str, content: bytes) -> None:
    """As the trainer does before it answers."""
    Path(path).write_bytes(content)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until it has come so far."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 the loop says it in a plain attribute
            await asyncio.sleep(0)


class Clinic:
    """A site's training loop between a scripted trainer and lists of what it said."""

    def __init__(
        self,
        folder: Path,
        *,
        max_in_flight: int = 1,
        score_limit_s: float = 50,
        stop_grace_s: float = 10,
        patience_s: float = 0,
        places: int = 1,
        job: JobSpec | None = None,
        outbox: type[Outbox] = Outbox,
        **spec: Any,
    ) -> None:
        local = {"steps": 3, "batch_size": 8, "learning_rate": 0.1, "evaluate": False, **spec.pop("local", {})}
        training = {"name": "heart", "task": "t", "local": local, "stop": {"versions": 9}, **spec}
        self.files = ModelFiles(folder / "model")
        self.outbox = outbox(folder / "outbox", "mercy")
        self.asked: asyncio.Queue[p.Command] = asyncio.Queue()
        self.answers: asyncio.Queue[p.Reply | Exception] = asyncio.Queue()
        self.said: list[Any] = []
        self.accepted: list[m.OfferAnswer] = []
        self.updates: list[m.UpdateId] = []
        self.pauses: list[float] = []
        self.sleeps = asyncio.Event()
        self.sleeps.set()
        self.places = Places(places)
        self.cancels = 0
        self.starts = 0
        self.ends = 0
        self.said_while_pausing: list[m.JobActivity] = []
        self.pid = 1
        settings = SiteSettings(
            site_name="mercy",
            site_data=folder,
            max_in_flight=max_in_flight,
            score_limit_s=score_limit_s,
            patience_s=patience_s,
            share_local_model=True,
        )
        self.loop = TrainingLoop(
            "heart",
            TrainingSpec.parse(training) if job is None else job,
            settings=settings,
            files=self.files,
            outbox=self.outbox,
            say=self.say,
            on_update=self.updates.append,
            start=self.start,
            places=self.places,
            sleep=self.sleep,
            stop_grace=timedelta(seconds=stop_grace_s),
        )

    # the trainer, as the loop sees it

    @asynccontextmanager
    async def start(self, on_progress: Callable[[p.Progress], None], *, threads: int) -> AsyncIterator[Clinic]:
        self.starts += 1
        self.on_progress = on_progress
        try:
            yield self
        finally:
            self.ends += 1

    async def ask(self, command: p.Command) -> p.Reply:
        self.asked.put_nowait(command)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cancel(self) -> None:
        self.cancels += 1

    # the rest of the site

    async def say(self, message: Any) -> None:
        (self.accepted if isinstance(message, m.OfferAnswer) else self.said).append(message)

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.said_while_pausing.append(self.loop.activity)
        await self.sleeps.wait()

    async def hold(self, version: int, part: str = "snapshot") -> None:
        self.files.chunk(m.Chunk(job="heart", transfer=str(version), part=part, index=0, count=1, body=FRAME))
        size = m.Part(frames=1, body_bytes=len(FRAME))
        manifest = m.VersionManifest(
            job="heart",
            version=version,
            digest=f"digest {version}",
            delta=size if part == "delta" else None,
            snapshot=size if part == "snapshot" else None,
            snapshot_version=0,
            snapshot_at=0.0,
            layout=LAYOUT if part == "snapshot" else None,
        )
        self.files.manifest(manifest)
        await self.loop.wake()

    # what a test does

    async def expects(self, kind: type[p.Command]) -> Any:
        """The next thing the loop asks, which must be of this kind."""
        async with asyncio.timeout(30):
            command = await self.asked.get()
        assert isinstance(command, kind), command
        return command

    async def idle(self, activity: str) -> None:
        """The loop asks nothing and says why."""
        await until(lambda: self.loop.activity.phrase == activity)
        assert self.asked.empty()

    def trains(self, base_version: int) -> None:
        self.answers.put_nowait(
            p.Trained(
                base_version=base_version, frame_sizes=(7, 5), effort=Effort(num_examples=30, steps=3, seconds=0.5)
            )
        )

    async def opens(self) -> None:
        await self.expects(p.Open)
        self.answers.put_nowait(OPENED)

    async def loads(self, version: int) -> p.Load:
        command: p.Load = await self.expects(p.Load)
        self.answers.put_nowait(p.Loaded(version=version))
        return command


@asynccontextmanager
async def running(clinic: Clinic) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(clinic.loop.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


# ------------------------------------------------------------------ the way of one update


async def test_a_version_becomes_an_update_in_the_outbox(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.idle("waiting for the model")
        await clinic.hold(4)
        load = await clinic.loads(4)
        assert (load.version, load.digest, load.deltas, load.layout) == (4, "digest 4", (), LAYOUT)
        train: p.Train = await clinic.expects(p.Train)
        write(train.path, b"seven..five.")
        clinic.trains(4)
        await clinic.idle("waiting for a receipt")
    (update_id,) = clinic.updates
    assert train.seed == training_seed(0, update_id)
    entry = clinic.outbox.entry(update_id)
    assert entry is not None
    assert list(entry.frames()) == [b"seven..", b"five."]
    assert entry.manifest.base_version == 4
    assert (entry.manifest.kind, entry.manifest.effort.num_examples) == ("delta", 30)
    assert (entry.manifest.frames, entry.manifest.body_bytes, entry.manifest.layout_digest) == (2, 12, "1a")


async def test_the_trainer_is_opened_with_the_job_and_the_site(clinic: Clinic) -> None:
    async with running(clinic):
        opening: p.Open = await clinic.expects(p.Open)
    assert (opening.job, opening.task, opening.site, opening.seed) == ("heart", "t", "mercy", 0)
    assert opening.local["steps"] == 3
    assert Path(opening.data).is_absolute()


async def test_a_receipt_lets_it_train_again_from_the_same_version(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        clinic.trains(0)
        await clinic.idle("waiting for a receipt")
        clinic.outbox.remove(clinic.updates[0])
        await clinic.loop.wake()
        await clinic.expects(p.Train)


async def test_only_the_deltas_it_lacks_are_loaded(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        await clinic.hold(1, "delta")
        await clinic.hold(2, "delta")
        clinic.trains(0)
        await clinic.idle("waiting for a receipt")
        clinic.outbox.remove(clinic.updates[0])
        await clinic.loop.wake()
        load = await clinic.loads(2)
    assert load.snapshot is None
    assert [Path(path).name for path in load.deltas] == ["v00000001.delta", "v00000002.delta"]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_no_more_updates_are_in_flight_than_allowed(tmp_path: Path, limit: int) -> None:
    clinic = Clinic(tmp_path, max_in_flight=limit)
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        for _ in range(limit):
            await clinic.expects(p.Train)
            clinic.trains(0)
        await clinic.idle("waiting for a receipt")
    assert len(set(clinic.updates)) == limit


async def test_an_update_left_by_an_earlier_process_counts_as_in_flight(tmp_path: Path) -> None:
    earlier = Clinic(tmp_path)
    async with running(earlier):
        await earlier.opens()
        await earlier.hold(0)
        await earlier.loads(0)
        await earlier.expects(p.Train)
        earlier.trains(0)
        await earlier.idle("waiting for a receipt")
    clinic = Clinic(tmp_path)
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.idle("waiting for a receipt")


async def test_sync_trains_once_from_each_version(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, strategy="sync")
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        clinic.trains(0)
        clinic.outbox.remove((await updates_of(clinic, 1))[0])
        await clinic.loop.wake()
        await clinic.idle("waiting for the next version")
        await clinic.hold(1, "delta")
        await clinic.loads(1)
        await clinic.expects(p.Train)


async def updates_of(clinic: Clinic, count: int) -> list[m.UpdateId]:
    await until(lambda: len(clinic.updates) >= count)
    return clinic.updates


async def test_metrics_that_are_not_finite_are_left_out(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        metrics = {"loss": float("nan"), "norm": float("inf"), "auc": 0.5}
        trained = p.Trained(
            base_version=0, frame_sizes=(), effort=Effort(num_examples=1, steps=1, seconds=0.1, metrics=metrics)
        )
        clinic.answers.put_nowait(trained)
        (update_id,) = await updates_of(clinic, 1)
    entry = clinic.outbox.entry(update_id)
    assert entry is not None
    assert entry.manifest.effort.metrics == {"auc": 0.5}


async def test_a_time_boxed_site_makes_the_steps_it_was_told_from_the_next_training_on(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, local={"steps": 10, "time_boxed": True}, max_in_flight=9)
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        assert (await clinic.expects(p.Train)).steps is None
        clinic.loop.set_steps(4)
        clinic.trains(0)
        assert (await clinic.expects(p.Train)).steps == 4
        # never more than the job says
        clinic.loop.set_steps(1000)
        clinic.trains(0)
        assert (await clinic.expects(p.Train)).steps == 10


async def test_a_budget_means_nothing_in_a_job_that_is_not_time_boxed(clinic: Clinic) -> None:
    async with running(clinic):
        clinic.loop.set_steps(1)
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        assert (await clinic.expects(p.Train)).steps is None


async def test_a_site_told_to_rebase_drops_the_training_from_an_old_version_and_begins_anew(tmp_path: Path) -> None:
    # given a site that trains from version 0
    clinic = Clinic(tmp_path, max_in_flight=2)
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        # when it is told that nothing before version 2 counts
        await clinic.loop.rebase(2)
        assert clinic.cancels == 1
        clinic.answers.put_nowait(p.Cancelled(base_version=0, steps=2))
        # then it trains no more until it holds such a version
        await clinic.idle("waiting for version 2")
        await clinic.hold(1, "delta")
        await clinic.idle("waiting for version 2")
        await clinic.hold(2, "delta")
        await clinic.loads(2)
        await clinic.expects(p.Train)
    assert clinic.updates == []


async def test_a_site_told_to_rebase_forgets_what_its_updates_left_out(tmp_path: Path) -> None:
    # given a site that compresses with error feedback and has left something out
    clinic = Clinic(tmp_path, codec={"up": {"kind": "topk", "ratio": 0.01}})
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        for rebase in (False, True, False):
            train: p.Train = await clinic.expects(p.Train)
            # then the training after the one in which it was told begins from nothing, and no other
            assert bool(train.residual_add) == (len(clinic.updates) > 0 and len(clinic.updates) != 2)
            write(train.residual_after, b"left out")
            clinic.trains(0)
            await clinic.idle("waiting for a receipt")
            if rebase:
                await clinic.loop.rebase(0)
            clinic.outbox.remove(clinic.updates[-1])
            await clinic.loop.wake()
        assert (await clinic.expects(p.Train)).residual_add


async def test_a_training_from_a_version_that_is_new_enough_goes_on(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(3)
        await clinic.loads(3)
        await clinic.expects(p.Train)
        await clinic.loop.rebase(3)
        clinic.trains(3)
        await clinic.idle("waiting for a receipt")
    assert clinic.cancels == 0
    assert len(clinic.updates) == 1


def test_the_seed_of_a_training_is_its_own_and_comes_again() -> None:
    one = m.UpdateId(site="mercy", incarnation="0123abcd", sequence=1)
    assert training_seed(0, one) == training_seed(0, one)
    others = [
        training_seed(1, one),
        training_seed(0, m.UpdateId(site="ucsf", incarnation="0123abcd", sequence=1)),
        training_seed(0, m.UpdateId(site="mercy", incarnation="0123abcd", sequence=2)),
    ]
    assert len({training_seed(0, one), *others}) == 4
    assert all(0 <= seed < 2**63 for seed in others)


async def test_only_a_code_that_leaves_something_out_has_residuals(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        train: p.Train = await clinic.expects(p.Train)
    assert (train.residual_add, train.residual_before, train.residual_after) == ((), "", "")


async def test_the_residual_goes_from_one_update_to_the_next_and_back_when_it_is_refused(tmp_path: Path) -> None:
    # given an update whose residual was put into the outbox with it
    clinic = Clinic(tmp_path, codec={"up": {"kind": "topk", "ratio": 0.05}})
    async with running(clinic):
        opening: p.Open = await clinic.expects(p.Open)
        clinic.answers.put_nowait(OPENED)
        await clinic.hold(0)
        await clinic.loads(0)
        trains = []
        for _ in range(3):
            trains.append(await clinic.expects(p.Train))
            write(trains[-1].residual_after, b"residual")
            if trains[-1].residual_add:
                write(trains[-1].residual_before, b"before")
            clinic.trains(0)
            await clinic.idle("waiting for a receipt")
            # when the second one is refused
            clinic.outbox.remove(clinic.updates[-1], refused=len(trains) == 2)
            await clinic.loop.wake()
    assert (opening.up, opening.ratio) == ("topk", 0.05)
    # then the second went out with what the first left, and the third with what the second went out with
    names = [[Path(path).name for path in train.residual_add] for train in trains]
    assert names == [[], ["00000000.residual"], ["00000001.before"]]
    assert not any(train.residual_subtract for train in trains)


# ------------------------------------------------------------------ the order of duties


async def test_initial_params_are_made_before_any_version_is_there(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.loop.make_initial(m.InitialParamsRequest(job="heart"))
        made: p.MakeInitial = await clinic.expects(p.MakeInitial)
        write(made.path, b"params")
        clinic.answers.put_nowait(p.Made(layout=LAYOUT, frame_sizes=(6,), digest="1a"))
        await clinic.idle("waiting for the model")
    (update_id,) = clinic.updates
    entry = clinic.outbox.entry(update_id)
    assert entry is not None
    assert (entry.manifest.kind, entry.manifest.layout) == ("initial", LAYOUT)


async def test_each_version_is_scored_before_it_is_trained_from_when_the_job_says_so(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, max_in_flight=2, local={"evaluate": True})
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(3)
        await clinic.loads(3)
        assert (await clinic.expects(p.Score)).version == 3
        clinic.answers.put_nowait(p.Scored(version=3, metrics={"auc": 0.7, "loss": float("nan")}, num_examples=9))
        await clinic.expects(p.Train)
        clinic.trains(3)
        # the second update from the same version is not scored again
        await clinic.expects(p.Train)
    (score,) = clinic.said
    assert (score.version, score.metrics, score.num_examples) == (3, {"auc": 0.7}, 9)
    assert score.not_finite == ("loss",)


async def test_a_request_for_a_score_cancels_the_training_and_is_the_last_duty(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Train)
        await clinic.loop.score(m.ScoreRequest(job="heart", version=1))
        assert clinic.cancels == 1
        clinic.answers.put_nowait(p.Cancelled(base_version=1, steps=2))
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(p.Scored(version=1, metrics={"auc": 0.5}, num_examples=9))
        await clinic.idle("waiting for the end of the job")
    assert [score.version for score in clinic.said] == [1]
    assert clinic.updates == []


async def test_a_score_is_given_once_the_version_is_held(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Train)
        await clinic.loop.score(m.ScoreRequest(job="heart", version=2))
        clinic.answers.put_nowait(p.Cancelled(base_version=1, steps=2))
        await clinic.idle("waiting for version 2")
        await clinic.hold(2, "delta")
        await clinic.loads(2)
        assert (await clinic.expects(p.Score)).version == 2


async def test_a_second_request_while_the_first_is_scored_is_not_lost(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.loop.score(m.ScoreRequest(job="heart", version=1))
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Score)
        await clinic.loop.score(m.ScoreRequest(job="heart", version=2))
        clinic.answers.put_nowait(p.Scored(version=1, metrics={}, num_examples=9))
        await clinic.idle("waiting for version 2")
        await clinic.hold(2, "delta")
        await clinic.loads(2)
        assert (await clinic.expects(p.Score)).version == 2


async def test_stop_cancels_the_training_and_ends(clinic: Clinic) -> None:
    async with running(clinic) as task:
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Train)
        await clinic.loop.stop()
        assert clinic.cancels == 1
        clinic.answers.put_nowait(p.Cancelled(base_version=1, steps=2))
        async with asyncio.timeout(30):
            await task
    assert clinic.updates == []


async def test_progress_is_part_of_what_the_site_says(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Train)
        clinic.on_progress(p.Progress(step=2, steps=3))
        activity = clinic.loop.activity
    assert activity == m.JobActivity(job="heart", activity=Activity.TRAINING, version=1, step=2, steps=3, device="cpu")


# ------------------------------------------------------------------ trouble


async def test_a_trainer_that_dies_is_replaced_after_a_growing_pause(clinic: Clinic) -> None:
    async with running(clinic) as task:
        for _ in range(5):
            await clinic.expects(p.Open)
            clinic.answers.put_nowait(TrainerDiedError("killed by SIGKILL"))
        async with asyncio.timeout(30):
            await task
    assert clinic.starts == 5
    assert clinic.pauses == [1.0, 2.0, 4.0, 8.0]
    assert [(t.restarts, t.fatal) for t in clinic.said] == [(1, False), (2, False), (3, False), (4, False), (5, True)]
    assert clinic.loop.activity.activity == "gave up"


async def test_what_may_pass_is_tried_for_as_long_as_the_site_has_patience(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, patience_s=3600.0)
    async with running(clinic):
        for _ in range(12):
            await clinic.expects(p.Open)
            clinic.answers.put_nowait(TrainerFailedError(p.Failed(error="no folder", traceback="", fatal=False)))
        await clinic.opens()
        await clinic.idle("waiting for the model")
    assert [t.fatal for t in clinic.said] == [False] * 12
    assert clinic.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[60.0] * 6]


@pytest.mark.parametrize("what", ["stop", "score"])
async def test_a_job_may_end_while_a_trainer_that_failed_is_waited_for(tmp_path: Path, what: str) -> None:
    clinic = Clinic(tmp_path, patience_s=3600.0)
    clinic.sleeps = asyncio.Event()  # the pause lasts until it is ended
    async with running(clinic) as task:
        await clinic.expects(p.Open)
        clinic.answers.put_nowait(TrainerDiedError("the GPU is busy"))
        await clinic.idle("restarting the trainer")
        if what == "score":
            await clinic.loop.score(m.ScoreRequest(job="heart", version=0))
        await clinic.loop.stop()
        async with asyncio.timeout(30):
            await task


async def test_a_person_who_mended_something_does_not_wait_for_the_next_try(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, patience_s=3600.0)
    clinic.sleeps = asyncio.Event()  # as long as this is not set
    async with running(clinic):
        await clinic.expects(p.Open)
        clinic.answers.put_nowait(TrainerDiedError("the GPU is busy"))
        await clinic.idle("restarting the trainer")
        clinic.loop.try_now()
        await clinic.opens()
        await clinic.idle("waiting for the model")


async def test_a_trainer_that_we_killed_after_our_own_cancel_has_not_failed(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path)
    async with running(clinic):
        for _ in range(8):
            await clinic.expects(p.Open)
            clinic.answers.put_nowait(TrainerDiedError("killed", after_cancel=True))
        await clinic.opens()
        await clinic.idle("waiting for the model")
    assert clinic.said == []
    assert clinic.pauses == []


async def test_a_job_waits_for_its_turn_and_says_so(clinic: Clinic) -> None:
    others = [clinic.places.ask(job, priority=1, submitter="bo") for job in ("one", "two")]
    async with running(clinic):
        await clinic.idle("queued")
        assert clinic.loop.activity.detail == "1 before it"
        assert clinic.starts == 0
        for other in others:
            clinic.places.leave(other)
        await clinic.opens()
        await clinic.idle("waiting for the model")


async def test_a_job_that_has_no_version_gives_its_place_to_others_after_a_while(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "YIELD_AFTER_S", (0.01, 0.02))
    async with running(clinic):
        await clinic.opens()
        other = clinic.places.ask("other", priority=0, submitter="bo")
        await until(other.turn.done)
        await clinic.idle("queued")
        assert clinic.ends == 1
        clinic.places.leave(other)
        await clinic.opens()


async def test_a_queued_job_is_not_scored_and_ends_at_once(clinic: Clinic) -> None:
    other = clinic.places.ask("other", priority=0, submitter="bo")
    async with running(clinic) as task:
        await clinic.idle("queued")
        await clinic.loop.score(m.ScoreRequest(job="heart", version=3))
        await until(lambda: bool(clinic.said))
        assert "still queued" in clinic.said[0].failed
        await clinic.loop.stop()
        async with asyncio.timeout(30):
            await task
    assert clinic.starts == 0
    assert not other.turn.cancelled()


async def test_a_training_that_succeeds_makes_earlier_failures_forgotten(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, max_in_flight=2)
    async with running(clinic):
        for _ in range(4):
            await clinic.expects(p.Open)
            clinic.answers.put_nowait(TrainerDiedError("killed"))
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        clinic.trains(0)
        await clinic.expects(p.Train)
        clinic.answers.put_nowait(TrainerDiedError("killed"))
        await clinic.expects(p.Open)
    assert [(t.restarts, t.fatal) for t in clinic.said] == [(n, False) for n in (1, 2, 3, 4, 1)]


async def test_what_only_a_person_can_mend_is_given_up_at_once(clinic: Clinic) -> None:
    async with running(clinic) as task:
        await clinic.expects(p.Open)
        clinic.answers.put_nowait(TrainerFailedError(p.Failed(error="no data", traceback="", fatal=True)))
        async with asyncio.timeout(30):
            await task
    assert clinic.said == [m.TrainerTrouble(site="mercy", job="heart", error="no data", restarts=1, fatal=True)]
    assert (clinic.starts, clinic.pauses) == (1, [])


async def test_an_error_as_long_as_a_book_is_told_in_short(clinic: Clinic) -> None:
    async with running(clinic) as task:
        await clinic.expects(p.Open)
        clinic.answers.put_nowait(TrainerFailedError(p.Failed(error="x" * 10**6, traceback="", fatal=True)))
        async with asyncio.timeout(30):
            await task
    (trouble,) = clinic.said
    assert len(trouble.error) == len(clinic.loop.activity.detail) == LONGEST_SAID


async def test_initial_params_are_made_again_when_the_trainer_died_over_them(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.loop.make_initial(m.InitialParamsRequest(job="heart"))
        await clinic.expects(p.MakeInitial)
        clinic.answers.put_nowait(TrainerDiedError("killed"))
        await clinic.opens()
        await clinic.expects(p.MakeInitial)


async def test_a_new_trainer_loads_everything_again(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.hold(1, "delta")
        await clinic.loads(1)
        await clinic.expects(p.Train)
        clinic.answers.put_nowait(TrainerDiedError("killed"))
        await clinic.opens()
        load = await clinic.loads(1)
    assert load.snapshot is not None
    assert len(load.deltas) == 1


async def test_deltas_that_fail_are_tried_from_the_snapshot_and_then_a_fresh_one_is_asked_for(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        await clinic.hold(1, "delta")
        clinic.trains(0)
        clinic.outbox.remove((await updates_of(clinic, 1))[0])
        await clinic.loop.wake()
        for snapshot_given in (False, True):
            load: p.Load = await clinic.expects(p.Load)
            assert (load.snapshot is not None) is snapshot_given
            clinic.answers.put_nowait(p.LoadFailed(version=1, reason="digest differs"))
        await clinic.idle("waiting for the model")
        assert clinic.said == [m.ResyncRequest(site="mercy", job="heart", reason="digest differs")]
        await clinic.hold(1)
        load = await clinic.loads(1)
    assert load.snapshot is not None


FAILED = p.Failed(error="KeyError in Ward.evaluate", traceback="KeyError: Mustermann", fatal=False, reference="1f")


SCORES = kinds.parse({"kind": "evaluate", "name": "heart", "task": "t", "models": [{"file": "a.safetensors"}]})


async def test_a_job_that_only_scores_opens_its_task_and_trains_nothing(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, job=SCORES)
    async with running(clinic):
        # when it begins, the layout of its params is said, and made when it is asked for
        await clinic.opens()
        await until(lambda: bool(clinic.accepted))
        await clinic.loop.make_initial(m.InitialParamsRequest(job="heart", layout_only=True))
        made = await clinic.expects(p.MakeInitial)
        write(made.path, b"whole")
        clinic.answers.put_nowait(p.Made(layout=LAYOUT, frame_sizes=(5,), digest="1a"))
        await until(lambda: bool(clinic.updates))
        # when it is asked for one model after the other
        for number in (0, 1):
            await clinic.loop.score(m.ScoreRequest(job="heart", version=number))
            await clinic.hold(number)
            await clinic.loads(number)
            await clinic.expects(p.Score)
            clinic.answers.put_nowait(p.Scored(version=number, metrics={"auc": 0.5}, num_examples=9))
            assert (await scored_next(clinic)).version == number
        # then it waits for the end
        await clinic.idle("waiting for the end of the job")


async def test_a_job_that_only_scores_waits_for_its_place_though_it_is_asked(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, job=SCORES)
    other = clinic.places.ask("other", priority=0, submitter="bo")
    async with running(clinic):
        await clinic.idle("queued")
        await clinic.loop.score(m.ScoreRequest(job="heart", version=0))
        await clinic.idle("queued")
        assert clinic.said == []
        clinic.places.leave(other)
        await clinic.opens()


async def scored_next(clinic: Clinic) -> m.ScoreAnswer:
    """The next thing that is said, which must be a score."""
    await until(lambda: bool(clinic.said))
    score = clinic.said.pop(0)
    assert isinstance(score, m.ScoreAnswer)
    return score


async def test_a_version_that_cannot_be_scored_is_said_and_trained_from(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, max_in_flight=2, local={"evaluate": True})
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(3)
        await clinic.loads(3)
        # when its evaluation fails
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(TrainerFailedError(FAILED))
        # then that is told in the words that may leave, and the training goes on in the same trainer
        await clinic.expects(p.Train)
        clinic.trains(3)
        await clinic.expects(p.Train)
    score = await scored_next(clinic)
    assert (score.version, score.metrics, score.failed) == (3, {}, "KeyError in Ward.evaluate")
    assert (clinic.starts, clinic.said) == (1, [])


async def test_a_final_score_that_fails_is_said_at_once(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Train)
        await clinic.loop.score(m.ScoreRequest(job="heart", version=1))
        clinic.answers.put_nowait(p.Cancelled(base_version=1, steps=2))
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(TrainerFailedError(FAILED))
        await clinic.idle("waiting for the end of the job")
    assert (await scored_next(clinic)).failed == "KeyError in Ward.evaluate"


async def test_an_evaluation_that_kills_its_trainer_is_said_and_not_tried_again(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, local={"evaluate": True})
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(3)
        await clinic.loads(3)
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(TrainerDiedError("killed by SIGSEGV"))
        assert (await scored_next(clinic)).failed == "killed by SIGSEGV"
        # then the next trainer trains from this version without scoring it
        await clinic.opens()
        await clinic.loads(3)
        await clinic.expects(p.Train)


async def test_a_task_whose_score_is_none_is_not_asked_for_another(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, max_in_flight=2, local={"evaluate": True})
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(3)
        await clinic.loads(3)
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(TrainerFailedError(dataclasses.replace(FAILED, error="returned a dict", fatal=True)))
        await clinic.expects(p.Train)
        await clinic.hold(4, "delta")
        clinic.trains(3)
        # then the next version is not given to it
        await clinic.loads(4)
        await clinic.expects(p.Train)
    assert [(score.version, score.failed) for score in clinic.said] == [(3, "returned a dict"), (4, "returned a dict")]


async def test_an_evaluation_that_never_comes_back_is_given_up_in_time(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, score_limit_s=0.01)
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Train)
        await clinic.loop.score(m.ScoreRequest(job="heart", version=1))
        clinic.answers.put_nowait(p.Cancelled(base_version=1, steps=2))
        # when no answer comes, then that is said, the trainer goes, and no other is started for nothing
        score = await scored_next(clinic)
        assert (score.version, score.failed) == (1, "not scored within 0.01 s")
        await until(lambda: clinic.loop.activity.activity == "waiting for the end of the job")
    assert clinic.ends == clinic.starts == 1


async def test_a_version_that_does_not_come_is_no_reason_to_wait_for_its_score(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, score_limit_s=0.01)
    async with running(clinic):
        await clinic.opens()
        await clinic.loop.score(m.ScoreRequest(job="heart", version=7))
        assert (await scored_next(clinic)).version == 7


def test_asking_again_for_a_score_gives_no_more_time() -> None:
    duty = ScoreDuty(limit_s=50.0)
    duty.ask(m.ScoreRequest(job="heart", version=3), now=0.0)
    duty.ask(m.ScoreRequest(job="heart", version=3), now=40.0)
    assert duty.by == 50.0
    duty.ask(m.ScoreRequest(job="heart", version=4), now=45.0)
    duty.done(3, duty.request)
    assert (duty.wanted, duty.by) == (4, 95.0)
    duty.done(4, duty.request)
    assert (duty.wanted, duty.by, duty.newest) == (None, None, 4)


def test_a_score_that_had_begun_before_it_was_asked_for_is_no_answer() -> None:
    duty = ScoreDuty(limit_s=50.0)
    begun_with = duty.request
    duty.ask(m.ScoreRequest(job="heart", version=3, intervals=True), now=0.0)
    duty.done(3, begun_with)
    assert (duty.wanted, duty.newest) == (3, 3)
    duty.done(3, duty.request)
    assert duty.wanted is None


async def test_a_job_that_ended_does_not_wait_for_an_evaluation(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, local={"evaluate": True}, stop_grace_s=0.01)
    async with running(clinic) as task:
        await clinic.opens()
        await clinic.hold(1)
        await clinic.loads(1)
        await clinic.expects(p.Score)
        await clinic.loop.stop()
        async with asyncio.timeout(30):
            await task
    assert (clinic.ends, clinic.said) == (1, [])


async def test_what_is_left_out_of_an_answer_is_said_in_the_log_and_nowhere_else(clinic: Clinic) -> None:
    with structlog.testing.capture_logs() as lines:
        async with running(clinic):
            await clinic.opens()
            await clinic.hold(0)
            await clinic.loads(0)
            await clinic.expects(p.Train)
            clinic.answers.put_nowait(
                p.Trained(
                    base_version=0,
                    frame_sizes=(),
                    effort=Effort(num_examples=1, steps=1, seconds=0.1),
                    notes=("Mustermann",),
                )
            )
            (update_id,) = await updates_of(clinic, 1)
    assert [line["text"] for line in lines if line["event"] == "task-answer"] == ["Mustermann"]
    entry = clinic.outbox.entry(update_id)
    assert entry is not None
    assert "Mustermann" not in str(entry.manifest)


async def test_the_text_of_an_error_stands_in_the_log_under_its_reference(clinic: Clinic) -> None:
    with structlog.testing.capture_logs() as lines:
        async with running(clinic):
            await clinic.expects(p.Open)
            clinic.answers.put_nowait(TrainerFailedError(FAILED))
            await clinic.opens()
    (line,) = (line for line in lines if line["event"] == "trainer-trouble")
    assert (line["log_level"], line["reference"], line["traceback"]) == ("error", "1f", "KeyError: Mustermann")
    assert "Mustermann" not in f"{clinic.said} {clinic.loop.activity}"


async def test_a_full_disk_is_told_without_the_names_of_folders(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        clinic.answers.put_nowait(DiskFullError("no room to write /data/Mustermann"))
        await clinic.expects(p.Open)
    (activity,) = clinic.said_while_pausing
    assert activity.detail == "there is no room in the state folder of the site"


class TightOutbox(Outbox):
    """An outbox that has no room for a local model, once."""

    full = True

    def commit(self, update_id: m.UpdateId, manifest: m.UpdateManifest, *args: Any, **more: Any) -> Entry:
        if self.full and manifest.kind is m.UpdateKind.LOCAL:
            self.full = False
            raise DiskFullError("no room")
        return super().commit(update_id, manifest, *args, **more)


async def test_a_full_disk_at_the_end_costs_the_local_model_and_not_the_score(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, outbox=TightOutbox, evaluate_local=True)
    trained = p.Trained(base_version=0, frame_sizes=(), effort=Effort(num_examples=1), local_sizes=(4,))
    async with running(clinic):
        await clinic.opens()
        await clinic.hold(0)
        await clinic.loads(0)
        train: p.Train = await clinic.expects(p.Train)
        write(train.local, b"four")
        clinic.answers.put_nowait(trained)
        await clinic.idle("waiting for a receipt")
        await clinic.loop.score(m.ScoreRequest(job="heart", version=0, local=True))
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(p.Scored(version=0, metrics={}, num_examples=7))
        await clinic.opens()
        await clinic.loads(0)
        await clinic.expects(p.Score)
        clinic.answers.put_nowait(p.Scored(version=0, metrics={}, num_examples=7))
        await until(lambda: bool(clinic.said))
    (answer,) = clinic.said
    assert (answer.num_examples, answer.local) == (7, "")


async def test_an_answer_to_another_question_is_a_dead_trainer(clinic: Clinic) -> None:
    async with running(clinic):
        await clinic.expects(p.Open)
        clinic.answers.put_nowait(p.Loaded(version=0))
        await clinic.opens()
    assert clinic.said[0].error == "the trainer answered Loaded to Open"


async def test_a_job_alone_has_all_gpus_and_shares_them_between_two_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a site with four GPUs and one job
    monkeypatch.setattr(site_places, "gpus", lambda: 4)
    clinic = Clinic(tmp_path, places=4, max_in_flight=9)
    async with running(clinic):
        asked = await clinic.expects(p.Open)
        assert (asked.device, *asked.ranks) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
        clinic.answers.put_nowait(OPENED)
        await clinic.hold(0)
        await clinic.loads(0)
        await clinic.expects(p.Train)
        # when another job comes while it trains
        other = clinic.places.ask("other", priority=0, submitter="bo")
        assert not other.turn.done()
        clinic.trains(0)
        # then the training is kept, and it goes on with its share
        asked = await clinic.expects(p.Open)
        assert (asked.device, *asked.ranks) == ("cuda:0", "cuda:1")
        assert other.turn.result() == 2
        assert len(clinic.updates) == 1
        clinic.answers.put_nowait(OPENED)
        await clinic.loads(0)
        await clinic.expects(p.Train)
