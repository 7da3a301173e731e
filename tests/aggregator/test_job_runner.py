"""The life of a job at the aggregator, with a real ledger and tensors and sites that are written here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbus.aggregator.desk import views
from fedbus.aggregator.incoming.complete import Complete, Unwanted
from fedbus.aggregator.job.checking import Gate
from fedbus.aggregator.job.initial_params import LAYOUTS_WAIT
from fedbus.aggregator.job.local_models import local_file
from fedbus.aggregator.job.origins import origin_of
from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.job.survey import Survey
from fedbus.aggregator.job.training import Training
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.tools import Tools
from fedbus.bus.post import Post
from fedbus.core.job.membership import Membership
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.answers import BrokenScore
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.spread import LEVELS, Spread
from fedbus.core.rules.facts import Committed, Folded
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import ProtocolError
from fedbus.export.params_file import read_params, write_params
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors import codec

LAYOUT = Layout.of([TensorSpec(name="w", shape=(10,), dtype="float32")])
RETURN = timedelta(seconds=1)


class Log:
    """A model log that nobody reads."""

    stream = "fedbus.models.heart.0a"
    chain = ""

    def __init__(self) -> None:
        self.snapshots: list[int] = []

    def wants_snapshot(self, version: int) -> bool:
        return False

    async def send(self, version: int, part: str, frames: Iterator[bytes], **facts: Any) -> m.Part:
        if part == "snapshot":
            self.snapshots.append(version)
        return m.Part(frames=sum(1 for _ in frames), body_bytes=0)

    async def finish(self, version: int, **parts: Any) -> int:
        return 0


class WideOpen:
    """The entrance of a job that nobody floods."""

    async def open(self, sites: object) -> None:
        pass


class Announcer:
    """Keeps what the aggregator says."""

    def __init__(self) -> None:
        self.told: list[tuple[str | None, Any]] = []
        self.events: list[tuple[str, str]] = []

    async def tell(self, site: str | None, message: Any) -> None:
        self.told.append((site, message))

    async def event(self, job: str, happened: events.Happened) -> None:
        self.events.append((happened.kind, happened.text))

    def asked(self, kind: type[Any]) -> list[str | None]:
        return [site for site, message in self.told if isinstance(message, kind)]


async def at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a worker thread would do."""
    return function(*args, **kwargs)


class House:
    """One life of the aggregator with one job; a new House in the same folder is the aggregator restarted."""

    def __init__(
        self,
        folder: Path,
        *,
        layouts_wait: timedelta = LAYOUTS_WAIT,
        nobody_left_s: float = 60.0,
        enrolled: Collection[str] | None = None,
        saving: Callable[..., Any] | None = None,
        **spec: Any,
    ) -> None:
        job = {
            "name": "heart",
            "task": "t",
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
            "stop": {"target": {"metric": "auc", "at_least": 0.5}},
        }
        parsed = TrainingSpec.parse(job | spec)
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.spool = Spool(folder / "spool")
        self.membership = Membership()
        self.announcer = Announcer()
        self.log = Log()
        self.writes: list[str] = []
        self.ledger.add_job("heart", parsed.to_dict(), message_id="m1", submitted_by="ana", state="submitted", at=1.0)
        (row,) = self.ledger.jobs()
        self.keeper = ModelKeeper("heart", parsed, ledger=self.ledger, spool=self.spool, folder=folder / "job")

        async def is_enrolled(site: str) -> bool:
            return enrolled is None or site in enrolled

        tools = Tools(
            session="s",
            ledger=self.ledger,
            store=self.store,  # type: ignore[arg-type]
            compute=at_once,  # type: ignore[arg-type]
            saving=saving or at_once,  # type: ignore[arg-type]
            post=Post(),
            announcer=self.announcer,  # type: ignore[arg-type]
            membership=self.membership,
            score_timeout_s=5.0,
            checkpoint_interval_s=0.0,
            nobody_left_s=nobody_left_s,
            enrolled=is_enrolled,
        )
        complete = Complete()
        self.work = Training(
            "heart",
            parsed,
            complete=complete,
            keeper=self.keeper,
            origin=origin_of(parsed, self.keeper, job="heart", jobs=folder, params=folder, ledger=self.ledger),
            tools=tools,
            open_log=self.open_log,
            layouts_wait=layouts_wait,
            gate=Gate(Survey("heart", tools=tools), tools=tools) if parsed.check else None,
        )
        self.runner = JobRunner(
            row,
            work=self.work,
            complete=complete,
            tools=tools,
            entrance=WideOpen(),  # type: ignore[arg-type]
            sites_return=RETURN,
        )

    async def store(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The thread that writes; each call that changes the ledger waits for the disk once."""
        if not function.__name__.startswith(("facts", "last_published", "model_log")):
            self.writes.append(function.__name__)
        return function(*args, **kwargs)

    async def open_log(self, *_: object) -> Any:
        return self.log

    @property
    def row(self) -> Any:
        return self.ledger.job("heart")

    async def accepts(self, site: str, *, layout: str = LAYOUT.digest) -> None:
        """A site takes part, and says which model its task makes."""
        join = m.Join(site=site, session="s", tasks=("t",), fedbus_version="0.1.0")
        self.membership.joined(join, now=time.monotonic())
        await self.runner.on_answer(m.OfferAnswer(site=site, job="heart", accepted=True, layout=layout))

    async def declines(self, site: str, reason: str) -> None:
        """A site is there and takes no part."""
        join = m.Join(site=site, session="s", tasks=("t",), fedbus_version="0.1.0")
        self.membership.joined(join, now=time.monotonic())
        await self.runner.on_answer(m.OfferAnswer(site=site, job="heart", accepted=False, reason=reason))

    async def trains(self, *sites: str) -> None:
        """The job is open and runs with these sites."""
        await self.runner.open()
        for site in sites:
            await self.accepts(site)
        self.makes_initial(min(sites), torch.zeros(LAYOUT.numel))
        await self.runs(has_state(self, m.JobState.RUNNING))

    @property
    def says(self) -> str:
        return views.says(self.runner, self.membership)

    async def scores(self, site: str, version: int, auc: float, *, examples: int = 9) -> None:
        answer = m.ScoreAnswer(site=site, job="heart", version=version, metrics={"auc": auc}, num_examples=examples)
        await self.runner.on_score(answer)

    async def scores_loss(self, site: str, version: int, loss: float | None) -> None:
        """A site scores a version; None: its loss is not finite there."""
        answer = m.ScoreAnswer(
            site=site,
            job="heart",
            version=version,
            metrics={} if loss is None else {"loss": loss},
            num_examples=9,
            not_finite=("loss",) if loss is None else (),
        )
        await self.runner.on_score(answer)

    def asked_for_scores_of(self) -> int:
        """The newest model, by its number in the model log, that sites were asked to score."""
        return max(message.version for _, message in self.announcer.told if isinstance(message, m.ScoreRequest))

    def makes_initial(self, site: str, flat: torch.Tensor) -> None:
        """Initial params of a site are complete in the spool."""
        self._comes(f"{site}:0123abcd:0", flat, kind=m.UpdateKind.INITIAL, layout=LAYOUT.to_dict())

    def sends(self, site: str, sequence: int, *, value: float = 0.1, **facts: Any) -> str:
        """An update of a site is complete in the spool; its id."""
        update_id = f"{site}:0123abcd:{sequence}"
        self._comes(update_id, torch.full((LAYOUT.numel,), value), kind=m.UpdateKind.DELTA, **facts)
        return update_id

    def _comes(self, update_id: str, flat: torch.Tensor, **facts: Any) -> None:
        frames = list(codec.encode(flat, LAYOUT, Code.FP32, seed=0))
        chunks = [
            m.Chunk(job="heart", transfer=update_id, part="update", index=i, count=len(frames), body=frame)
            for i, frame in enumerate(frames)
        ]
        self.ledger.record_arrivals(self.spool.append(chunks), [], at=0.0)
        manifest = m.UpdateManifest(
            job="heart",
            update_id=update_id,
            layout_digest=LAYOUT.digest,
            frames=len(frames),
            body_bytes=sum(map(len, frames)),
            **{"base_version": 0, "effort": Effort(num_examples=1)} | facts,
        )
        self.runner.complete.put_nowait(manifest)

    async def runs(self, until: Callable[[], bool]) -> None:
        """Serve until something is true, then die as by SIGKILL."""
        task = asyncio.create_task(self.runner.serve())
        try:
            async with asyncio.timeout(30):
                while not (until() or task.done()):  # noqa: ASYNC110 the runner says it in plain attributes
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            (error,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(error, Exception):
            raise error


def has_state(house: House, state: m.JobState) -> Callable[[], bool]:
    return lambda: house.row.state == str(state)


@pytest.fixture
async def finishing(tmp_path: Path) -> Path:
    """A folder with a job that reached its target and was killed while the sites scored its last version."""
    house = House(tmp_path)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    await house.scores("mercy", 0, 0.9)
    await house.runs(has_state(house, m.JobState.FINISHING))
    return tmp_path


async def test_a_site_that_answers_while_the_job_is_being_opened_takes_part(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.accepts("mercy")
    await house.runner.open()
    assert house.runner.active() == {"mercy"}


async def test_a_site_that_the_job_was_not_offered_to_is_not_asked_about_its_data(tmp_path: Path) -> None:
    # given a job of one site that checks data, whose salt is for its sites
    house = House(tmp_path, sites=["mercy"], min_sites=1, check="required")
    await house.runner.open()
    # when another login accepts it
    with pytest.raises(ProtocolError, match="which was not offered to it"):
        await house.accepts("ucsf")
    await house.accepts("mercy")
    # then it is told nothing
    assert house.announcer.asked(m.StatisticsRequest) == ["mercy"]


async def test_a_job_that_was_ending_when_the_aggregator_was_killed_ends_with_the_scores_of_its_sites(
    finishing: Path,
) -> None:
    # given the aggregator started again
    house = House(finishing)
    await house.runner.open()
    serving = asyncio.create_task(house.runs(has_state(house, m.JobState.FINISHED)))
    # when its sites answer the roll call a moment later, and score when asked
    await asyncio.sleep(RETURN.total_seconds() / 20)
    assert house.row.state == "finishing"
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    async with asyncio.timeout(30):
        while len(house.announcer.asked(m.ScoreRequest)) < 2:  # noqa: ASYNC110 the announcer says it in a plain list
            await asyncio.sleep(0.005)
    for site in ("mercy", "ucsf"):
        await house.scores(site, 0, 0.8)
    await serving
    # then the job ends for the reason it had, with all scores
    assert house.row.reason == "auc 0.9 reached the target of at least 0.5"
    assert house.row.result["scores"].keys() == {"mercy", "ucsf"}


async def test_what_no_site_is_asked_for_with_a_score_is_no_row(tmp_path: Path) -> None:
    # given a job that runs
    house = House(tmp_path)
    await house.trains("mercy", "ucsf")
    # when a site says spreads with its score, and scores versions that nobody makes
    spreads = {"auc": Spread(value=0.1, cases=9, draws=9, quantiles=(0.1,) * len(LEVELS))}
    for version in (-7, -6, 0, 1):
        await house.runner.on_score(
            m.ScoreAnswer(
                site="mercy", job="heart", version=version, metrics={"auc": 0.1}, num_examples=9, spreads=spreads
            )
        )
    # then the ledger has the one score, without them
    (kept,) = house.ledger.findings.scores("heart", after=-99, until=99)
    assert (kept.score.version, kept.score.spreads) == (0, {})


@pytest.mark.parametrize("nothing", [0, -9])
async def test_a_last_score_on_no_examples_is_no_part_of_a_mean(finishing: Path, nothing: int) -> None:
    # given a job that waits for the scores of two sites, of which one has no test data
    house = House(finishing)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    await house.runs(lambda: len(house.announcer.asked(m.ScoreRequest)) == 2)
    # when that one answers first
    await house.scores("mercy", 0, 0.1, examples=nothing)
    await house.scores("ucsf", 0, 0.8)
    await house.runs(has_state(house, m.JobState.FINISHED))
    # then the other one says what the version is worth
    assert house.row.result["best"]["value"] == 0.8


async def test_a_site_that_is_restarted_while_the_job_ends_is_asked_for_its_score_again(finishing: Path) -> None:
    # given a job that waits for the scores of two sites
    house = House(finishing)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    await house.runs(lambda: len(house.announcer.asked(m.ScoreRequest)) == 2)
    await house.scores("ucsf", 0, 0.8)
    house.announcer.told.clear()
    # when both are restarted
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    # then both may follow the model log, and the one that owes its score is asked
    assert sorted(house.announcer.asked(m.JobStarted)) == ["mercy", "ucsf"]
    assert {message.log for _, message in house.announcer.told if isinstance(message, m.JobStarted)} == {Log.stream}
    assert house.announcer.asked(m.ScoreRequest) == ["mercy"]


async def test_a_job_that_was_ending_takes_no_update_any_more_after_a_restart(finishing: Path) -> None:
    house = House(finishing)
    await house.runner.open()
    await house.accepts("mercy")
    update = m.UpdateManifest(
        job="heart",
        update_id="mercy:0123abcd:1",
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=5),
        layout_digest=LAYOUT.digest,
        frames=1,
        body_bytes=9,
    )
    house.runner.complete.put_nowait(update)
    await house.runs(lambda: bool(house.announcer.asked(m.Receipt)))
    ((_, receipt),) = [told for told in house.announcer.told if isinstance(told[1], m.Receipt)]
    assert (receipt.outcome, receipt.reason) == (m.Outcome.REFUSED, "the job is finishing")


async def test_a_score_of_a_version_that_does_not_exist_is_ignored(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.runner.open()
    await house.accepts("mercy")
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    await house.scores("mercy", 10**9, 0.9)
    assert house.work.life.means() == {}
    assert events.VersionScored.kind not in dict(house.announcer.events)


async def test_an_update_that_the_intake_does_not_want_is_refused_on_record(tmp_path: Path) -> None:
    # given a running job
    house = House(tmp_path)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    # when the intake hands over an update of a site that sends too many
    update = m.UpdateManifest(
        job="heart",
        update_id="mercy:0123abcd:1",
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=5),
        layout_digest=LAYOUT.digest,
        frames=1,
        body_bytes=9,
    )
    house.runner.complete.put_nowait(Unwanted(manifest=update, reason="too many"))
    receipt = m.Receipt(job="heart", update_id=update.update_id, outcome=m.Outcome.REFUSED, reason="too many")
    await house.runs(lambda: ("mercy", receipt) in house.announcer.told)
    # then its site was told what is a fact
    assert [row.fact.reason for row in house.ledger.facts("heart")] == ["too many"]
    assert house.work.aggregation.site_stats("mercy").refused == 1


async def test_initial_params_of_a_site_that_the_job_does_not_name_are_refused(tmp_path: Path) -> None:
    house = House(tmp_path, sites=["mercy"])
    await house.runner.open()
    await house.accepts("mercy")
    house.makes_initial("ucsf", torch.zeros(LAYOUT.numel))
    await house.runs(lambda: bool(house.announcer.asked(m.Receipt)))
    assert ("update-refused", "initial params of ucsf refused: site ucsf is not one of the job's sites: mercy") in (
        house.announcer.events
    )
    assert house.row.layout is None
    assert house.runner.life.accepted_sites == {"mercy"}


async def test_a_site_whose_initial_params_are_refused_is_not_asked_for_ever(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.full((LAYOUT.numel,), float("nan")))
    await house.runs(lambda: house.announcer.asked(m.InitialParamsRequest) == ["mercy", "ucsf"])
    reason = "its initial params were refused: initial params have NaN or infinite values"
    assert house.runner.life.declined_sites == {"mercy": reason}


async def test_a_running_job_that_every_site_gave_up_says_who_and_why(tmp_path: Path) -> None:
    # given a running job with one site
    house = House(tmp_path)
    await house.runner.open()
    await house.accepts("mercy")
    house.makes_initial("mercy", torch.zeros(10))
    await house.runs(until=lambda: house.runner.life.state is m.JobState.RUNNING)
    # when its trainer cannot go on there
    trouble = m.TrainerTrouble(site="mercy", job="heart", error="CUDA is broken", restarts=5, fatal=True)
    await house.runner.on_trouble(trouble)
    # then the job says so
    assert views.says(house.runner, house.membership).endswith("; mercy takes no part: CUDA is broken")


async def test_updates_that_wait_together_fill_one_buffer_after_the_other(tmp_path: Path) -> None:
    # given a running job with a buffer of 2
    house = House(tmp_path, strategy={"kind": "buffered", "buffer": 2})
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    # when five updates wait
    sent = [house.sends("mercy", sequence) for sequence in range(1, 6)]
    await house.runs(lambda: house.work.aggregation.updates == 5)
    # then no version takes more than its two
    facts = (row.fact for row in house.ledger.facts("heart"))
    committed = [[str(u) for u in fact.update_ids] for fact in facts if isinstance(fact, Committed)]
    assert committed == [sent[:2], sent[2:4]]


async def test_an_update_that_makes_a_version_is_recorded_with_it_in_one_write(tmp_path: Path) -> None:
    # given a running job with a buffer of 1
    house = House(tmp_path, strategy={"kind": "buffered", "buffer": 1})
    await house.trains("mercy", "ucsf")
    house.writes.clear()
    # when an update comes alone
    sent = house.sends("mercy", 1)
    await house.runs(lambda: len(house.writes) >= 2)
    # then the disk is waited for twice: for both facts and the receipt, and for the mark that the version is published
    assert house.writes == ["record_facts", "mark_published"]
    folded, committed = (row.fact for row in house.ledger.facts("heart"))
    assert isinstance(folded, Folded)
    assert isinstance(committed, Committed)
    assert committed.update_ids == (folded.update_id,)
    assert house.ledger.receipt("heart", sent) is not None


class Disk:
    """The thread that writes checkpoints: it writes what it is given once it may, and reads it at once."""

    def __init__(self) -> None:
        self.may_read, self.may_write = asyncio.Event(), asyncio.Event()
        self.written = 0

    async def __call__(self, write: Callable[..., Any], *, read: Callable[[], object]) -> None:
        await self.may_read.wait()
        read()
        await self.may_write.wait()
        write()
        self.written += 1


@asynccontextmanager
async def serving(house: House) -> AsyncIterator[Callable[[Callable[[], bool]], Awaitable[None]]]:
    """The job is served all the while; yields what waits until something is true."""
    task = asyncio.create_task(house.runner.serve())

    async def until(found: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not (found() or task.done()):  # noqa: ASYNC110 the runner says it in plain attributes
                await asyncio.sleep(0.005)

    try:
        yield until
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_updates_are_folded_while_a_checkpoint_is_read_and_versions_made_while_it_is_written(
    tmp_path: Path,
) -> None:
    # given a job with a buffer of 2, whose first version is to be saved on a disk that takes its time
    disk = Disk()
    house = House(tmp_path, saving=disk, strategy={"kind": "buffered", "buffer": 2})
    await house.trains("mercy", "ucsf")
    published = partial(house.ledger.last_published, "heart")
    async with serving(house) as until:
        for sequence in range(1, 5):
            house.sends("mercy", sequence)
        # then the next updates are folded meanwhile, and their version waits
        await until(lambda: house.work.aggregation.version == 2)
        assert house.work.aggregation.updates == 4
        assert published() == 1
        # when the checkpoint is read, and before the disk has it, then that version is made
        disk.may_read.set()
        await until(lambda: published() == 2)
        assert (published(), disk.written) == (2, 0)


async def test_the_end_of_a_job_waits_for_its_checkpoint(tmp_path: Path) -> None:
    disk = Disk()
    disk.may_read.set()
    house = House(tmp_path, saving=disk, strategy={"kind": "buffered", "buffer": 1}, stop={"versions": 1})
    await house.trains("mercy", "ucsf")
    async with serving(house) as until:
        house.sends("mercy", 1)
        await until(lambda: house.ledger.last_published("heart") == 1)
        assert house.row.state == str(m.JobState.RUNNING)
        disk.may_write.set()
        await until(has_state(house, m.JobState.FINISHING))
        assert house.row.state == str(m.JobState.FINISHING)
        assert disk.written == 2


async def test_a_job_that_ends_at_a_number_of_updates_takes_no_more_of_those_that_wait(tmp_path: Path) -> None:
    # given a running job that ends at 3 updates
    house = House(tmp_path, strategy={"kind": "buffered", "buffer": 10}, stop={"updates": 3})
    await house.runner.open()
    await house.accepts("mercy")
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    # when five updates wait
    sent = [house.sends("mercy", sequence) for sequence in range(1, 6)]
    await house.runs(lambda: len(house.announcer.asked(m.Receipt)) == 6)
    # then the last two are refused
    outcomes = {
        message.update_id: message.outcome for _, message in house.announcer.told if isinstance(message, m.Receipt)
    }
    assert [outcomes[update_id] for update_id in sent] == [m.Outcome.FOLDED] * 3 + [m.Outcome.REFUSED] * 2


async def test_a_liar_is_named_and_a_restart_gives_the_same_bits(tmp_path: Path) -> None:
    # given a running job of five sites, one of which may lie
    keys = {"robust": {"kind": "multi_krum", "f": 1}, "min_sites": 5, "strategy": {"kind": "buffered"}}
    house = House(tmp_path, **keys)
    await house.runner.open()
    sites = ("mercy", "ucsf", "va", "cleveland", "hungary")
    for site in sites:
        await house.accepts(site)
    house.makes_initial("cleveland", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    # when one sends the contrary of the others
    for index, site in enumerate(sites):
        house.sends(site, 1, value=-30.0 if site == "va" else 0.1 + index / 100)
    await house.runs(lambda: house.work.aggregation.version == 1)
    # then watchers are told who is not believed
    (text,) = [text for kind, text in house.announcer.events if kind == "version-committed"]
    assert text.endswith("; not believed: va")
    # and the params are what the others say
    params = house.keeper.model.params.clone()
    assert 0.0 < float(params.min()) <= float(params.max()) < 0.2
    # when the aggregator is killed and makes the version again from its start
    _, newest = sorted((tmp_path / "job" / "checkpoints").iterdir())
    newest.unlink()
    again = House(tmp_path, **keys)
    await again.runner.open()
    assert torch.equal(again.keeper.model.params, params)


async def test_a_slow_site_of_a_time_boxed_job_is_told_to_make_fewer_steps(tmp_path: Path) -> None:
    # given a running job of two sites
    local = {"steps": 50, "time_boxed": True, "batch_size": 1, "learning_rate": 0.1}
    house = House(tmp_path, local=local, strategy={"kind": "buffered", "buffer": 2})
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    # when one takes twice as long
    house.sends("mercy", 1, effort=Effort(num_examples=1, steps=50, seconds=10.0))
    house.sends("ucsf", 1, effort=Effort(num_examples=1, steps=50, seconds=20.0))
    await house.runs(lambda: house.work.aggregation.updates == 2)
    # then it is told before its receipt, so that its next training is shorter
    told = [message for site, message in house.announcer.told if site == "ucsf"]
    assert told.index(m.StepBudget(job="heart", steps=25)) < [type(message) for message in told].index(m.Receipt)
    # and again when it was started anew
    house.announcer.told.clear()
    await house.runner.on_answer(m.OfferAnswer(site="ucsf", job="heart", accepted=True))
    assert m.StepBudget(job="heart", steps=25) in [message for site, message in house.announcer.told]


async def test_the_first_by_alphabet_does_not_define_the_model_against_two_others(tmp_path: Path) -> None:
    # given three sites, of which the first makes another model
    house = House(tmp_path, min_sites=2)
    await house.runner.open()
    await house.accepts("alpha", layout="7c1a55e500000000")
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    # when the job looks for its initial params
    await house.runs(lambda: bool(house.announcer.asked(m.InitialParamsRequest)))
    # then one of the two is asked, and people are told who differs from whom
    assert house.announcer.asked(m.InitialParamsRequest) == ["mercy"]
    assert f"sites make different models: mercy, ucsf ({LAYOUT.digest[:8]}) against alpha (7c1a55e5)" in [
        text for _, text in house.announcer.events
    ]
    # and what the other one makes is refused
    house.makes_initial("alpha", torch.zeros(LAYOUT.numel))
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    assert ("update-refused", "initial params of alpha refused: site mercy was asked for them, not alpha") in (
        house.announcer.events
    )


async def test_a_job_whose_two_sites_make_different_models_does_not_start_and_says_who_differs(tmp_path: Path) -> None:
    house = House(tmp_path, min_sites=2)
    await house.runner.open()
    await house.accepts("alpha", layout="7c1a55e500000000")
    await house.accepts("mercy")
    await house.runs(lambda: any("different models" in text for _, text in house.announcer.events))
    assert house.announcer.asked(m.InitialParamsRequest) == []
    assert "alpha (7c1a55e5) against mercy" in views.says(house.runner, house.membership)


async def test_a_site_that_is_repaired_may_say_another_model(tmp_path: Path) -> None:
    house = House(tmp_path, min_sites=2)
    await house.runner.open()
    await house.accepts("alpha", layout="7c1a55e500000000")
    await house.accepts("mercy")
    house.runner.site_started_anew("alpha")
    await house.accepts("alpha")
    await house.runs(lambda: bool(house.announcer.asked(m.InitialParamsRequest)))


async def test_sites_of_an_older_release_which_never_say_their_model_may_train(tmp_path: Path) -> None:
    house = House(tmp_path, layouts_wait=timedelta(0))
    await house.runner.open()
    await house.accepts("mercy", layout="")
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))


async def test_a_snapshot_is_made_for_the_sites_of_the_job_once_however_many_ask(tmp_path: Path) -> None:
    # given a running job of two sites, one of which is gone
    house = House(tmp_path)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    house.membership.left(m.Leave(site="ucsf", session="s"), now=time.monotonic())
    house.log.snapshots.clear()
    # when a site that takes no part, and the one that is gone, ask for snapshots
    for site in ("mallory", "ucsf"):
        for _ in range(100):
            await house.runner.on_resync(m.ResyncRequest(site=site, job="heart", reason="lost"))
    sent = house.sends("mercy", 1)
    await house.runs(lambda: house.ledger.receipt("heart", sent) is not None)
    # then none is made, and nobody is told
    assert house.log.snapshots == []
    assert events.SiteResync.kind not in dict(house.announcer.events)
    # and when a site of the job asks, again and again
    for _ in range(100):
        await house.runner.on_resync(m.ResyncRequest(site="mercy", job="heart", reason="lost"))
    sent = house.sends("mercy", 2)
    await house.runs(lambda: house.ledger.receipt("heart", sent) is not None)
    # then one is made
    assert len(house.log.snapshots) == 1
    assert [kind for kind, _ in house.announcer.events].count(events.SiteResync.kind) == 1


async def test_who_accepted_is_kept_and_counts_after_a_restart(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.runner.open()
    await house.accepts("mercy")
    again = House(tmp_path)
    await again.runner.open()
    assert again.runner.participants.takes_part("mercy")
    assert not again.runner.participants.takes_part("mallory")


STOPS_AT_3 = {
    "stop": {"versions": 3},
    "strategy": {"kind": "buffered", "buffer": 1},
    "server_optimizer": {"kind": "plain", "lr": 1.0},
}


def leaves(house: House, site: str) -> None:
    house.membership.left(m.Leave(site=site, session="s"), now=time.monotonic())
    house.runner.sites_changed()


async def test_a_job_pauses_with_fewer_sites_than_it_asks_for_and_loses_nothing(tmp_path: Path) -> None:
    # given a running job that asks for two sites, one of which leaves
    house = House(tmp_path, min_sites=2, **STOPS_AT_3)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    leaves(house, "ucsf")
    # when the other one sends an update
    update_id = house.sends("mercy", 1)
    await house.runs(lambda: events.JobPaused.kind in dict(house.announcer.events))
    # then it says so, and the update waits: neither folded nor refused
    says = views.says(house.runner, house.membership)
    assert says.startswith("paused: 1 of 2 sites is there")
    assert "ucsf left 0 s ago" in says
    assert house.work.aggregation.updates == 0
    assert house.ledger.receipt("heart", update_id) is None
    # and when the site is back, the job goes on with that update at once
    await house.accepts("ucsf")
    await house.runs(lambda: house.work.aggregation.version == 1)
    assert events.JobResumed.kind in dict(house.announcer.events)
    assert house.ledger.receipt("heart", update_id)["outcome"] == "folded"


async def test_a_paused_job_ends_by_its_wall_time_and_says_what_became_no_version(tmp_path: Path) -> None:
    # given a job with one update in its buffer of two, and a site that leaves
    house = House(tmp_path, min_sites=2, stop={"wall_time_s": 1.0}, strategy={"kind": "buffered", "buffer": 2})
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    house.sends("mercy", 1)
    await house.runs(lambda: house.work.aggregation.updates == 1)
    leaves(house, "ucsf")
    # when its time is over
    await house.runs(has_state(house, m.JobState.FINISHING))
    # then no version was made of one site's update
    assert house.work.aggregation.version == 0
    assert house.row.reason == (
        "the wall time of 1 s is over; the last 1 update became no version, for 1 of 2 sites is there"
    )
    await house.scores("mercy", 0, 0.5)
    await house.runs(has_state(house, m.JobState.FINISHED))


async def test_every_site_that_accepted_is_listed_also_after_a_restart_and_when_the_job_was_aborted(
    tmp_path: Path,
) -> None:
    # given a job that two sites have accepted, one of which sends nothing
    house = House(tmp_path, **STOPS_AT_3)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    house.sends("mercy", 1)
    await house.runs(lambda: house.work.aggregation.version == 1)
    # when the aggregator is restarted, only the other one is there, and the job is aborted
    house = House(tmp_path, **STOPS_AT_3)
    await house.runner.open()
    await house.accepts("mercy")
    numbers = views.job_detail(house.row, house.runner, house.membership, views.FromTheLedger()).sites
    assert {site: of_site.updates for site, of_site in numbers.items()} == {"mercy": 1, "ucsf": 0}
    house.runner.abort("seen enough")
    await house.runs(has_state(house, m.JobState.ABORTED))
    # then the result says how far it came, and with whom
    detail = views.job_detail(house.row, None, house.membership, views.FromTheLedger())
    assert (detail.version, detail.updates) == (1, 1)
    assert {site: of_site.updates for site, of_site in detail.sites.items()} == {"mercy": 1, "ucsf": 0}


async def runs_to_its_last_score(house: House, *losses: float | None, best: float | None = None) -> None:
    """A job of two sites with a version for each of these losses; None: not finite at either site.

    best: the loss of the version that both are asked for after the last one; None: they say what they said before.
    """
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    for version, loss in enumerate(losses):
        if version:
            house.sends("mercy", version)
        last = version == len(losses) - 1
        kept = house.keeper.best_folder / f"v{version:08d}.safetensors"
        await house.runs(has_state(house, m.JobState.FINISHING) if last else kept.exists)
        for site in ("mercy", "ucsf"):
            await house.scores_loss(site, version, loss)
    await house.runs(lambda: house.runner.life.state.ended or house.asked_for_scores_of() > len(losses) - 1)
    if not house.runner.life.state.ended:
        best = min(loss for loss in losses if loss is not None) if best is None else best
        for site in ("mercy", "ucsf"):
            await house.scores_loss(site, house.asked_for_scores_of(), best)
        await house.runs(lambda: house.runner.life.state.ended)


async def test_a_job_whose_last_version_is_finite_nowhere_has_failed_and_leaves_the_best_one(tmp_path: Path) -> None:
    house = House(tmp_path, **STOPS_AT_3)
    await runs_to_its_last_score(house, 0.9, 0.2, None, None)
    # then it says so, and the file to take is that of the best version
    assert (house.row.state, house.row.reason) == (
        "failed",
        "version 3 scores NaN or infinity at every site that scored it: mercy, ucsf; the best finite version, 1, is "
        "exported (version 3 of 3 is there)",
    )
    best = house.row.result["best"]
    assert (best["version"], best["metric"], best["value"]) == (1, "loss", 0.2)
    assert house.row.result["exported"] == best["exported"]
    assert Path(best["exported"]).parent == tmp_path / "job" / "best"
    flat = read_params(Path(best["exported"]), LAYOUT)
    assert flat.tolist() == pytest.approx([0.1] * LAYOUT.numel)
    # and nothing but it and the last version stays on disk
    assert [path.name for path in sorted((tmp_path / "job" / "best").glob("*.safetensors"))] == [
        "v00000001.safetensors"
    ]
    assert house.row.result["scores"]["mercy"]["not_finite"] == ["loss"]


async def test_the_best_version_is_in_the_result_beside_the_last_one(tmp_path: Path) -> None:
    house = House(tmp_path, **STOPS_AT_3)
    await runs_to_its_last_score(house, 0.9, 0.2, 0.4, 0.3)
    assert house.row.state == "finished"
    best = house.row.result["best"]
    assert best["version"] == 1
    assert house.row.result["exported"].endswith("final.safetensors")
    # and every site has scored both at the end, the best one shown anew
    assert {site: score["metrics"]["loss"] for site, score in best["scores"].items()} == {"mercy": 0.2, "ucsf": 0.2}
    assert house.log.snapshots[-1] == 4
    assert {site: score["metrics"]["loss"] for site, score in house.row.result["scores"].items()} == {
        "mercy": 0.3,
        "ucsf": 0.3,
    }


async def test_a_job_with_local_models_is_followed_by_one_in_which_every_site_scores_them(tmp_path: Path) -> None:
    # given that a site has left its model by the end, and the job's best version is not the last
    house = House(tmp_path, **STOPS_AT_3, evaluate_local=True, task_config={"fold": 2}, seed=7)
    left = local_file(tmp_path / "job", "ucsf")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"its model")
    await runs_to_its_last_score(house, 0.9, 0.2, 0.4, 0.3)
    # then the job that scores it is there with the end, of the same submitter
    assert house.row.state == "finished"
    follow_up = house.ledger.job(house.row.result["follow_up"])
    assert follow_up is not None
    assert (follow_up.state, follow_up.submitted_by) == ("submitted", "ana")
    spec = EvaluateSpec.parse(follow_up.spec)
    assert [model.says for model in spec.models] == [
        "heart, version best",
        "heart, version last",
        "heart, local model of ucsf",
    ]
    assert (spec.sites, spec.task, spec.task_config, spec.seed) == (("mercy", "ucsf"), "t", {"fold": 2}, 7)


async def test_a_job_that_did_not_finish_is_followed_by_none(tmp_path: Path) -> None:
    house = House(tmp_path, **STOPS_AT_3, evaluate_local=True)
    left = local_file(tmp_path / "job", "ucsf")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"its model")
    await house.trains("mercy", "ucsf")
    house.runner.abort("aborted by ana")
    await house.runs(has_state(house, m.JobState.ABORTED))
    assert house.row.result["local_models"] == ["ucsf"]
    assert "follow_up" not in house.row.result
    assert len(house.ledger.jobs()) == 1


async def test_what_all_sites_say_of_the_best_version_at_the_end_counts(tmp_path: Path) -> None:
    # given a version that looked better than the last one while only some had scored it
    house = House(tmp_path, **STOPS_AT_3)
    await runs_to_its_last_score(house, 0.9, 0.2, 0.4, 0.3, best=0.35)
    # then the last one is the best after all
    assert house.row.result["best"]["version"] == 3
    assert not list((tmp_path / "job" / "best").glob("*.safetensors"))


async def test_a_best_version_that_cannot_be_shown_keeps_its_score_and_the_job_ends(tmp_path: Path) -> None:
    house = House(tmp_path, **STOPS_AT_3)
    await house.trains("mercy", "ucsf")
    for version, loss in enumerate((0.9, 0.2, 0.4, 0.3)):
        if version:
            house.sends("mercy", version)
        kept = house.keeper.best_folder / f"v{version:08d}.safetensors"
        await house.runs(kept.exists if version < 3 else has_state(house, m.JobState.FINISHING))
        if version == 3:
            # given that the file of the best version is damaged by the time the job ends
            (house.keeper.best_folder / "v00000001.safetensors").write_bytes(b"half")
        for site in ("mercy", "ucsf"):
            await house.scores_loss(site, version, loss)
    await house.runs(lambda: house.runner.life.state.ended)
    assert (house.row.state, house.row.result["best"]["value"]) == ("finished", 0.2)
    said = [text for _, text in house.announcer.events if "cannot be shown" in text]
    assert [text.startswith("version 1, the best, cannot be shown: ") for text in said] == [True]
    assert "taken up again" not in said[0]


async def test_an_aggregator_that_is_killed_while_the_best_version_is_scored_shows_the_last_one_again(
    tmp_path: Path,
) -> None:
    # given a job that has shown its best version to the sites, as number 4 of its model log
    house = House(tmp_path, **STOPS_AT_3)
    await house.trains("mercy", "ucsf")
    for version, loss in enumerate((0.9, 0.2, 0.4, 0.3)):
        if version:
            house.sends("mercy", version)
        kept = house.keeper.best_folder / f"v{version:08d}.safetensors"
        await house.runs(kept.exists if version < 3 else has_state(house, m.JobState.FINISHING))
        for site in ("mercy", "ucsf"):
            await house.scores_loss(site, version, loss)
    await house.runs(lambda: house.asked_for_scores_of() == 4)
    # when another aggregator goes on
    again = House(tmp_path, **STOPS_AT_3)
    await again.runner.open()
    assert again.runner.version == 3
    for site in ("mercy", "ucsf"):
        await again.accepts(site)
    await again.runs(lambda: len(again.announcer.asked(m.ScoreRequest)) == 2)
    # then the sites, which hold number 4, are shown the last version once more as number 5, and the best as number 6
    for number, loss in ((5, 0.3), (6, 0.2)):
        assert again.asked_for_scores_of() == number
        for site in ("mercy", "ucsf"):
            await again.scores_loss(site, number, loss)
        await again.runs(lambda n=number: again.runner.life.state.ended or again.asked_for_scores_of() > n)
    assert again.row.state == "finished"
    assert (again.row.result["version"], again.row.result["best"]["version"]) == (3, 1)


async def test_what_sites_had_measured_counts_after_a_restart_once_they_are_back(tmp_path: Path) -> None:
    # given a running job that both sites have scored
    house = House(tmp_path)
    await house.trains("mercy", "ucsf")
    await house.scores("mercy", 0, 0.1)
    await house.scores("ucsf", 0, 0.3)
    # when another aggregator goes on
    again = House(tmp_path)
    await again.runner.open()
    # then a site counts from when it is back
    assert again.work.life.means() == {}
    await again.accepts("mercy")
    assert again.work.life.means() == {"auc": 0.1}
    await again.accepts("ucsf")
    assert again.work.life.means() == {"auc": pytest.approx(0.2)}


async def test_when_the_last_version_is_the_best_there_is_one_file(tmp_path: Path) -> None:
    house = House(tmp_path, **STOPS_AT_3)
    await runs_to_its_last_score(house, 0.9, 0.5, 0.4, 0.1)
    best = house.row.result["best"]
    assert (best["version"], best["exported"]) == (3, house.row.result["exported"])
    assert not list((tmp_path / "job" / "best").glob("*.safetensors"))


async def test_what_is_not_finite_is_said_once_in_the_events_and_in_the_sentence_of_the_job(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    for _ in range(3):
        await house.scores_loss("ucsf", 0, None)
    said = [text for kind, text in house.announcer.events if kind == events.ScoreNotFinite.kind]
    assert said == ["version 0 scores NaN or infinity at ucsf: loss"]
    assert "ucsf scored version 0: loss is not finite" in [text for _, text in house.announcer.events]
    assert "; version 0 scores NaN or infinity at ucsf (loss)" in views.says(house.runner, house.membership)
    detail = views.job_detail(house.row, house.runner, house.membership, views.FromTheLedger())
    assert detail.not_finite == {"ucsf": BrokenScore(version=0, metrics=("loss",))}


async def test_a_site_that_cannot_score_the_last_version_delays_no_end(finishing: Path) -> None:
    # given a job that waits for the scores of two sites
    house = House(finishing)
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    await house.runs(lambda: len(house.announcer.asked(m.ScoreRequest)) == 2)
    # when one of them cannot score
    await house.scores("ucsf", 0, 0.8)
    failed = m.ScoreAnswer(site="mercy", job="heart", version=0, metrics={}, num_examples=0, failed="no test data")
    await house.runner.on_score(failed)
    # then the job ends with the score of the other one, and says why there is no more
    await house.runs(has_state(house, m.JobState.FINISHED))
    scores = house.row.result["scores"]
    assert scores["ucsf"] == {"metrics": {"auc": 0.8}, "num_examples": 9}
    assert scores["mercy"] == {"metrics": {}, "num_examples": 0, "failed": "no test data"}
    assert (events.ScoreFailed.kind, "mercy could not score version 0: no test data") in house.announcer.events


async def test_a_finished_job_says_where_its_last_version_is_not_finite(tmp_path: Path) -> None:
    house = House(tmp_path, stop={"versions": 1}, strategy={"kind": "buffered", "buffer": 1})
    await house.runner.open()
    for site in ("mercy", "ucsf"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    house.sends("mercy", 1)
    await house.runs(has_state(house, m.JobState.FINISHING))
    await house.scores_loss("mercy", 1, 0.5)
    await house.scores_loss("ucsf", 1, None)
    await house.runs(has_state(house, m.JobState.FINISHED))
    assert house.row.reason == "version 1 of 1 is there; version 1 scores NaN or infinity at ucsf"


@pytest.mark.parametrize("first", [True, False], ids=["the first of all", "after the others"])
async def test_the_first_update_of_a_stolen_login_does_not_ruin_the_params_for_good(
    tmp_path: Path, first: bool
) -> None:
    # given a model of norm 1, two honest sites, and one that sends a billion in every element, of 10^12 patients
    house = House(tmp_path, stop={"versions": 99}, strategy={"kind": "buffered", "buffer": 1})
    await house.runner.open()
    for site in ("mercy", "ucsf", "va"):
        await house.accepts(site)
    house.makes_initial("mercy", torch.full((LAYOUT.numel,), 10**-0.5))
    await house.runs(has_state(house, m.JobState.RUNNING))
    honest = [("mercy", 0.1, 100), ("ucsf", 0.1, 100)]
    lie = ("va", 1e9, 10**12)
    updates = [lie, *honest] if first else [*honest, lie]
    for sequence, (site, value, examples) in enumerate(updates, start=1):
        house.sends(site, sequence, value=value, effort=Effort(num_examples=examples))
    await house.runs(lambda: house.work.aggregation.version == len(updates))
    # then the params are where honest sites could have brought them
    assert float(house.keeper.model.params.abs().max()) < (4.0 if first else 10.0)
    # and people are told
    said = [text for kind, text in house.announcer.events if kind == events.SiteStandsOut.kind]
    if not first:
        assert said == [
            "va: its updates are 1e+10 times as long as those of the other sites; at most 30 times counts",
            "va: it says that it has 1000000000000 examples; they count as 10000, 100 times what the median of the "
            "other sites has",
        ]


# ------------------------------------------------------------------ what is waited for in vain, and what is left of it

PLAIN_BUFFER = {"strategy": {"kind": "buffered", "buffer": 1}, "server_optimizer": {"kind": "plain", "lr": 1.0}}


async def test_a_job_whose_target_no_site_reports_says_so_and_fails_with_its_newest_version_exported(
    tmp_path: Path,
) -> None:
    # given a job that ends by nothing but a metric which its sites spell differently
    house = House(tmp_path, stop={"target": {"metric": "AUC", "at_least": 0.5}}, **PLAIN_BUFFER)
    await house.trains("mercy", "ucsf")
    # when the first score comes
    await house.scores("mercy", 0, 0.9)
    in_vain = "the stop rule target waits for metric 'AUC', sites report auc: nearest 'auc'"
    await house.runs(lambda: (events.JobWaiting.kind, in_vain) in house.announcer.events)
    # then everybody may read it, and the job goes on until all have scored a few
    assert house.says.startswith(in_vain)
    for version in range(1, 4):
        house.sends("mercy", version)
        await house.runs(lambda version=version: house.work.aggregation.version == version)
        assert house.row.state == "running"
        for site in ("mercy", "ucsf"):
            await house.scores(site, version, 0.9)
    await house.runs(has_state(house, m.JobState.FAILED))
    # and then it has failed with that reason, and leaves what it has
    assert house.row.reason == f"{in_vain}; nothing else ends the job"
    result = house.row.result
    assert read_params(Path(result["exported"]), LAYOUT).tolist() == pytest.approx([0.3] * LAYOUT.numel)
    assert result["scores"]["ucsf"] == {"metrics": {"auc": 0.9}, "num_examples": 9}


async def test_a_site_that_is_not_enrolled_is_named_with_the_nearest_and_waited_for(tmp_path: Path) -> None:
    # given a job that names a site which nobody has enrolled, and one that is not there yet
    house = House(tmp_path, sites=["mercy", "uscf", "va"], min_sites=2, enrolled={"mercy", "ucsf", "va"})
    await house.runner.open()
    await house.accepts("mercy")
    house.membership.joined(
        m.Join(site="ucsf", session="s", tasks=("t",), fedbus_version="0.1.0"), now=time.monotonic()
    )
    # when it waits
    unknown = "site uscf is not enrolled at the broker: nearest 'ucsf'"
    await house.runs(lambda: (events.JobWaiting.kind, unknown) in house.announcer.events)
    # then it says so as long as it waits
    assert house.says.startswith(f"{unknown}; waiting for sites: 1 of 2 accepted")
    assert house.row.state == "waiting for sites"


async def test_a_job_that_every_site_has_declined_says_so_at_once_and_fails_with_the_reasons(tmp_path: Path) -> None:
    house = House(tmp_path, nobody_left_s=0.3)
    await house.runner.open()
    await house.declines("mercy", "no task t here")
    await house.declines("ucsf", "the disk is full")
    left = "no site is left to take part: mercy: no task t here; ucsf: the disk is full"
    await house.runs(has_state(house, m.JobState.FAILED))
    assert (events.JobWaiting.kind, f"{left}; the job fails in 0 s unless a site comes") in house.announcer.events
    assert house.row.reason == left


async def test_a_job_that_its_last_site_gives_up_fails_and_leaves_its_newest_version(tmp_path: Path) -> None:
    house = House(tmp_path, nobody_left_s=0.2, **STOPS_AT_3)
    await house.trains("mercy")
    house.sends("mercy", 1)
    await house.runs(lambda: house.work.aggregation.version == 1)
    trouble = m.TrainerTrouble(site="mercy", job="heart", error="CUDA is broken", restarts=5, fatal=True)
    await house.runner.on_trouble(trouble)
    await house.runs(has_state(house, m.JobState.FAILED))
    assert house.row.reason == "no site is left to take part: mercy: CUDA is broken"
    assert read_params(Path(house.row.result["exported"]), LAYOUT).tolist() == pytest.approx([0.1] * LAYOUT.numel)


async def test_a_site_that_tries_again_in_time_is_enough(tmp_path: Path) -> None:
    # given a job that its one site has declined
    house = House(tmp_path, nobody_left_s=30.0)
    await house.runner.open()
    await house.declines("mercy", "no task t here")
    await house.runs(lambda: "no site is left" in house.says)
    # when somebody mends that site
    await house.accepts("mercy")
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    # then the job runs, and says nothing of it any more
    await house.runs(has_state(house, m.JobState.RUNNING))
    assert "is left" not in house.says


@pytest.mark.parametrize("sites", [[], ["mercy"]], ids=["nobody came", "one of two came"])
async def test_a_job_that_never_starts_ends_by_its_wall_time(tmp_path: Path, sites: list[str]) -> None:
    house = House(tmp_path, min_sites=2, nobody_left_s=0.3, stop={"wall_time_s": 0.1})
    await house.runner.open()
    for site in sites:
        await house.accepts(site)
    await house.runs(has_state(house, m.JobState.FAILED))
    assert house.row.reason == (
        f"not started within its wall time of 0.1 s: waiting for sites: {len(sites)} of 2 accepted"
    )
    assert house.row.result["exported"] == ""


async def test_a_clock_that_is_behind_after_a_restart_gives_a_job_no_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a job that has run for 900 of its 1000 seconds
    keys = {"stop": {"wall_time_s": 1000.0}}
    house = House(tmp_path, **keys)
    await house.runner.open()
    await house.accepts("mercy")
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.RUNNING))
    began = time.time()
    house.ledger.mark_published("heart", 1, at=began + 900.0)
    # when the aggregator is started anew on a machine whose clock is ten minutes behind
    monkeypatch.setattr(time, "time", lambda: began - 600.0)
    again = House(tmp_path, **keys)
    await again.runner.open()
    # then the job has 100 seconds left
    ends_at = again.runner.life.wall_time_ends_at()
    assert ends_at is not None
    assert 90 < ends_at - time.monotonic() <= 101
    (text,) = [text for kind, text in again.announcer.events if kind == events.JobContinues.kind]
    assert "after 0 s without an aggregator" in text


async def test_a_job_whose_sites_have_no_place_for_it_yet_waits_beyond_its_wall_time(tmp_path: Path) -> None:
    # given a site that says that other jobs have all its places
    house = House(tmp_path, nobody_left_s=0.3, stop={"wall_time_s": 0.1})
    await house.runner.open()
    await house.accepts("mercy", layout="")

    def says(activity: Activity) -> None:
        doing = m.JobActivity(job="heart", activity=activity, version=-1)
        house.membership.status(
            m.SiteStatus(site="mercy", session="s", lease_s=60.0, jobs=(doing,)), now=time.monotonic()
        )

    says(Activity.QUEUED)
    long_after = time.monotonic() + 0.8
    await house.runs(lambda: time.monotonic() > long_after)
    assert house.row.state == "waiting for sites"
    # when it has a place, and yet nothing comes of it
    says(Activity.LOADING_DATA)
    await house.runs(has_state(house, m.JobState.FAILED))
    assert house.row.reason.startswith("not started within its wall time of 0.1 s: ")


async def test_an_aborted_job_leaves_its_newest_and_its_best_version_and_what_its_sites_measured(
    tmp_path: Path,
) -> None:
    # given a job whose version 1 was the best, and one of whose sites has left since
    house = House(tmp_path, stop={"versions": 99}, **PLAIN_BUFFER)
    await house.trains("mercy", "ucsf")
    for version, loss in enumerate([0.9, 0.2, 0.4]):
        if version:
            house.sends("mercy", version)
        kept = house.keeper.best_folder / f"v{version:08d}.safetensors"
        await house.runs(kept.exists)
        for site in ("mercy", "ucsf"):
            await house.scores_loss(site, version, loss)
    house.sends("mercy", 3)
    await house.runs(lambda: house.work.aggregation.version == 3)
    await house.scores_loss("mercy", 3, 0.3)
    leaves(house, "ucsf")
    # when a person ends it
    house.runner.abort("aborted by ana: seen enough")
    await house.runs(has_state(house, m.JobState.ABORTED))
    # then everything is there that a finished job leaves
    result = house.row.result
    assert (result["version"], result["updates"], result["reason"]) == (3, 3, "aborted by ana: seen enough")
    assert read_params(Path(result["exported"]), LAYOUT).tolist() == pytest.approx([0.3] * LAYOUT.numel)
    assert (result["best"]["version"], result["best"]["value"]) == (1, 0.2)
    assert read_params(Path(result["best"]["exported"]), LAYOUT).tolist() == pytest.approx([0.1] * LAYOUT.numel)
    # and of which version each score is
    assert result["scores"]["mercy"] == {"metrics": {"loss": 0.3}, "num_examples": 9}
    assert result["scores"]["ucsf"] == {"metrics": {"loss": 0.4}, "num_examples": 9, "version": 2}


async def test_a_job_whose_params_file_does_not_fit_has_failed_on_record(tmp_path: Path) -> None:
    house = House(tmp_path, initial_params="start.safetensors")
    other = Layout.of([TensorSpec(name="v", shape=(3,), dtype="float32")])
    write_params(tmp_path / "start.safetensors", torch.zeros(3), other, {}, durably=False)
    await house.runner.open()
    await house.accepts("mercy")
    await house.runs(lambda: bool(house.announcer.asked(m.InitialParamsRequest)))
    house.makes_initial("mercy", torch.zeros(LAYOUT.numel))
    await house.runs(has_state(house, m.JobState.FAILED))
    assert "start.safetensors" in house.row.reason
    assert events.JobEnded.kind in dict(house.announcer.events)


async def test_a_running_job_says_after_a_restart_that_it_is_resumed_and_whom_it_waits_for(tmp_path: Path) -> None:
    # given a job of two sites at version 1, and an aggregator that is started anew
    house = House(tmp_path, min_sites=2, **STOPS_AT_3)
    await house.trains("mercy", "ucsf")
    house.sends("mercy", 1)
    await house.runs(lambda: house.work.aggregation.version == 1)
    house = House(tmp_path, min_sites=2, **STOPS_AT_3)
    # when it has not even read its model
    line = views.job_line(house.row, house.runner, house.membership)
    assert (line.state, line.version) == ("running", None)
    assert line.says == "resuming: bringing its model back from disk"
    # and when no site is back yet
    await house.runner.open()
    line = views.job_line(house.row, house.runner, house.membership)
    assert (line.state, line.version) == ("running", 1)
    assert line.says == "resuming at version 1: waiting for mercy and ucsf to come back"
    # and when one is
    await house.accepts("mercy")
    assert house.says.startswith("paused: 1 of 2 sites is there")
    assert house.says.split("; ")[2] == "not back since the aggregator started: ucsf"
    # then it says nothing of it any more when all are
    await house.accepts("ucsf")
    assert "back" not in house.says
