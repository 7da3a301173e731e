"""What one site may set off: a login that says too much costs the others nothing, and what counts is not lost."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.desk.site_desk import SiteDesk
from fedbus.aggregator.incoming.allowance import READ_BURST
from fedbus.aggregator.incoming.complete import Complete
from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.job.works import Place, work_of
from fedbus.aggregator.tools import Tools
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, SiteMessage
from fedbus.core.job.membership import Membership, SiteState
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.trust.authority import Authority
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

SPEC = {
    "task": "t",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 1000},
}


class WideOpen:
    """The entrance of a job that nobody floods."""

    async def open(self, sites: object) -> None:
        pass


class Announcer:
    """Counts what the aggregator says."""

    def __init__(self) -> None:
        self.told: list[tuple[str | None, Any]] = []
        self.answered: list[tuple[str, Any]] = []
        self.events: list[tuple[str, str, str]] = []
        self.refused: list[str] = []

    async def tell(self, site: str | None, message: Any) -> None:
        self.told.append((site, message))

    def answer(self, site: str, message: Any) -> None:
        self.answered.append((site, message))

    async def event(self, job: str, happened: events.Happened) -> None:
        self.events.append((happened.kind, job, happened.text))

    async def refuse(self, delivery: Any, reason: str) -> None:
        self.refused.append(reason)

    def kinds(self) -> Counter[str]:
        return Counter(kind for kind, _, _ in self.events)


class Jobs:
    """Jobs that wait for sites and are offered to all."""

    def __init__(self, announcer: Announcer) -> None:
        self.runners: dict[str, JobRunner] = {}
        self._announcer = announcer

    async def offer(self, runner: JobRunner, site: str) -> None:
        await self._announcer.tell(site, m.JobOffer(job=runner.job, spec=runner.life.head.to_dict()))


class Reads:
    """The thread that reads what is asked, and how often it did."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.times += 1
        return function(*args, **kwargs)


class Delivery:
    """A message of a login."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope


class Desk:
    """A desk with running jobs, at a time that tests set."""

    def __init__(self, folder: Path, *jobs: str, post: Post | None = None) -> None:
        self.now = 1000.0
        self.announcer, self.reads, self.ledger = Announcer(), Reads(), Ledger(folder / "ledger.sqlite3")
        self.tools = Tools(
            session="s",
            ledger=self.ledger,
            store=at_once,  # type: ignore[arg-type]
            compute=self.reads,  # type: ignore[arg-type]
            saving=self.reads,  # type: ignore[arg-type]
            post=post or Post(),
            announcer=self.announcer,  # type: ignore[arg-type]
            membership=Membership(),
            score_timeout_s=5.0,
            checkpoint_interval_s=0.0,
        )
        self.jobs = Jobs(self.announcer)
        for job in jobs:
            self.jobs.runners[job] = self._runner(folder, job)
        self.desk = SiteDesk(tools=self.tools, jobs=self.jobs, clock=lambda: self.now)  # type: ignore[arg-type]

    def _runner(self, folder: Path, job: str) -> JobRunner:
        spec = TrainingSpec.parse({"name": job} | SPEC)
        self.ledger.add_job(job, spec.to_dict(), message_id=job, submitted_by="ana", state="submitted", at=1.0)
        row = self.ledger.job(job)
        assert row is not None
        place = Place(jobs=folder, params=folder, spool=Spool(folder / "spool"), open_log=no_log)
        complete = Complete()
        work = work_of(row, complete=complete, place=place, tools=self.tools)
        return JobRunner(row, work=work, complete=complete, tools=self.tools, entrance=WideOpen())  # type: ignore[arg-type]

    async def says(self, *messages: SiteMessage) -> None:
        for message in messages:
            await self.desk.take(delivery_of(message))

    async def joins(self, site: str, session: str = "s1") -> None:
        await self.says(m.Join(site=site, session=session, tasks=("t",), fedbus_version="0.1.0"))

    async def after(self, seconds: float) -> None:
        """Time passes while the desk looks around twice a second."""
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            await self.desk.look_around()


def delivery_of(message: SiteMessage) -> Any:
    return Delivery(dataclasses.replace(Post().from_site(message), user_id=message.site))


async def at_once(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


async def no_log(*_: object) -> Any:
    raise NotImplementedError


def status(site: str, *jobs: str, session: str = "s1", version: int = 1) -> m.SiteStatus:
    activities = tuple(m.JobActivity(job=job, activity=Activity.QUEUED, version=version) for job in jobs)
    return m.SiteStatus(site=site, session=session, lease_s=30.0, jobs=activities)


async def test_a_status_that_names_thousands_of_unknown_jobs_costs_one_read_and_a_few_answers(tmp_path: Path) -> None:
    # given a site that says it works for as many jobs as a message holds, again and again
    desk = Desk(tmp_path, "heart")
    await desk.joins("evil")
    for _ in range(20):
        await desk.says(status("evil", *(f"j{n}" for n in range(2000))))
    # then the jobs are looked up once, and it is told of some of them, beside what others are told
    assert desk.reads.times == 1
    assert len(desk.announcer.answered) == 64
    assert {type(message) for _, message in desk.announcer.told} == {m.JobOffer}
    # and with time it is told again
    await desk.after(6)
    await desk.says(status("evil", "j1"))
    assert len(desk.announcer.answered) == 65


async def test_a_site_is_told_how_each_job_that_is_over_has_ended(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "heart")
    for job, state in (("done", "finished"), ("opening", "submitted")):
        desk.ledger.add_job(job, {}, message_id=job, submitted_by="ana", state=state, at=1.0)
    await desk.joins("mercy")
    await desk.says(status("mercy", "heart", "done", "opening", "never"))
    assert [(message.job, str(message.state)) for _, message in desk.announcer.answered] == [
        ("done", "finished"),
        ("never", "aborted"),
    ]


FLOODS: dict[str, Any] = {
    "joins of new sessions": lambda n: m.Join(site="evil", session=f"x{n}", tasks=("t",), fedbus_version="1"),
    "joins of one session": lambda n: m.Join(site="evil", session="s1", tasks=("t",), fedbus_version="1"),
    "acceptances": lambda n: m.OfferAnswer(site="evil", job="heart", accepted=True),
    "flapping answers": lambda n: m.OfferAnswer(site="evil", job="heart", accepted=bool(n % 2), reason=f"{n}" * 90),
    "scores": lambda n: m.ScoreAnswer(site="evil", job="heart", version=0, metrics={"auc": 0.5}, num_examples=n + 1),
    "troubles": lambda n: m.TrainerTrouble(site="evil", job="heart", error=f"trouble {n}", restarts=n),
    "requests for snapshots": lambda n: m.ResyncRequest(site="evil", job="heart", reason=f"{n}"),
    "statuses that follow nothing": lambda n: status("evil", "heart", version=-1),
}


@pytest.mark.parametrize("make", FLOODS.values(), ids=FLOODS)
async def test_a_flood_of_one_site_sets_off_little_and_another_site_is_heard_at_once(tmp_path: Path, make: Any) -> None:
    # given a site that accepted a job and says the same 5000 times within a second
    desk = Desk(tmp_path, "heart", "lungs")
    await desk.jobs.runners["heart"].open()
    await desk.joins("evil")
    await desk.says(m.OfferAnswer(site="evil", job="heart", accepted=True))
    before = len(desk.announcer.told) + len(desk.announcer.events)
    for n in range(5000):
        await desk.says(make(n))
    # then it has set off some hundred messages at most
    assert len(desk.announcer.told) + len(desk.announcer.events) - before <= 550
    # and another site is offered its jobs
    await desk.joins("mercy")
    assert [site for site, _ in desk.announcer.told[-2:]] == ["mercy", "mercy"]
    # and people are told once, not 5000 times
    await desk.after(30)
    said = [text for kind, _, text in desk.announcer.events if kind == events.SiteLimited.kind]
    assert 0 < len(said) <= 2
    assert all(text.startswith("evil says more than one site may: ") for text in said)


async def test_what_a_site_said_last_counts_even_when_it_was_put_off(tmp_path: Path) -> None:
    # given a site that changes its mind more often than anybody may, and ends with yes
    desk = Desk(tmp_path, "heart")
    await desk.jobs.runners["heart"].open()
    await desk.joins("mercy")
    for n in range(1001):
        await desk.says(m.OfferAnswer(site="mercy", job="heart", accepted=n % 2 == 0, reason=str(n)))
    # then a moment later it takes part
    await desk.after(2)
    assert desk.jobs.runners["heart"].life.accepted_sites == {"mercy"}


async def test_a_site_that_came_and_went_too_often_is_offered_its_jobs_in_the_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "heart", "lungs")
    for n in range(500):
        await desk.joins("mercy", session=f"x{n}")
        await desk.says(m.Leave(site="mercy", session=f"x{n}"))
    await desk.joins("mercy", session="last")
    desk.announcer.told.clear()
    await desk.after(3)
    assert [(site, message.job) for site, message in desk.announcer.told] == [("mercy", "heart"), ("mercy", "lungs")]
    view = desk.tools.membership.get("mercy")
    assert view is not None
    assert view.state is SiteState.ONLINE


async def test_messages_beyond_what_one_site_may_say_are_not_read(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.joins("evil")
    broken = Delivery(dataclasses.replace(Post().from_site(status("evil")), user_id="evil", body=b"{"))
    for _ in range(int(READ_BURST) + 1000):
        await desk.desk.take(broken)  # type: ignore[arg-type]
    assert len(desk.announcer.refused) == READ_BURST - 1


async def test_ten_sites_that_behave_meet_no_limit(tmp_path: Path) -> None:
    # given ten sites that score a version of two jobs ten times a second, for a minute, and restart now and then
    desk = Desk(tmp_path, "heart", "lungs")
    for job in ("heart", "lungs"):
        await desk.jobs.runners[job].open()
    for second in range(60):
        for site in (f"site-{n}" for n in range(10)):
            if second % 10 == 0:
                await desk.joins(site, session=f"at {second}")
                for job in ("heart", "lungs"):
                    await desk.says(m.OfferAnswer(site=site, job=job, accepted=True))
            for tenth in range(10):
                version = 10 * second + tenth
                for job in ("heart", "lungs"):
                    score = m.ScoreAnswer(site=site, job=job, version=version, metrics={"auc": 0.5}, num_examples=9)
                    await desk.says(score)
            await desk.says(status(site, "heart", "lungs", session=f"at {second - second % 10}"))
        await desk.after(1)
    assert events.SiteLimited.kind not in desk.announcer.kinds()


async def test_a_job_that_breaks_over_a_message_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    # given two jobs, one of which breaks over any answer
    desk = Desk(tmp_path, "heart", "lungs")
    await desk.jobs.runners["lungs"].open()
    await desk.joins("mercy")
    desk.jobs.runners["heart"].life = None  # type: ignore[assignment]
    # when a site answers to both
    for job in ("heart", "lungs"):
        await desk.says(m.OfferAnswer(site="mercy", job=job, accepted=True))
    await desk.after(1)
    # then the other one has its site, and the broken one ends with what went wrong
    assert desk.jobs.runners["lungs"].life.accepted_sites == {"mercy"}
    with pytest.raises(AttributeError):
        async with asyncio.timeout(10):
            await desk.jobs.runners["heart"].serve()


async def test_a_score_that_does_not_count_is_told_to_nobody(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "heart")
    await desk.joins("evil")
    score = m.ScoreAnswer(site="evil", job="heart", version=0, metrics={"auc": 0.5}, num_examples=9)
    trouble = m.TrainerTrouble(site="evil", job="heart", error="x", restarts=1)
    await desk.says(score, trouble)
    assert desk.announcer.kinds() == {events.SiteJoined.kind: 1}


@pytest.mark.parametrize(("ahead_s", "says"), [(1230.0, "20 min ahead of"), (-7230.0, "2 h behind")])
async def test_a_site_whose_signatures_are_of_another_time_is_named_once(
    tmp_path: Path, ahead_s: float, says: str
) -> None:
    authority = Authority.new("hearts", at=datetime.now(UTC))
    for whom in (subject("aggregator", Role.AGGREGATOR), subject("mercy")):
        write_kit(tmp_path / whom.name, authority, whom)
    desk = Desk(tmp_path, "heart", post=Post(Identity.load(tmp_path / "aggregator")))
    mercy = Post(Identity.load(tmp_path / "mercy"), clock=lambda: time.time_ns() + int(ahead_s * 1e9))

    for message in (
        m.Join(site="mercy", session="s", tasks=(), fedbus_version="0.1.0"),
        m.Leave(site="mercy", session="s"),
    ):
        signed = mercy.outgoing(mercy.from_site(message))
        await desk.desk.take(Delivery(dataclasses.replace(signed, user_id="mercy")))  # type: ignore[arg-type]

    assert desk.announcer.kinds() == {"site-clock": 1}
    assert len(desk.announcer.refused) == 2
    [(_, _, text)] = desk.announcer.events
    assert says in text
    assert "nothing that it signs counts" in text
