"""A job that asks every site every question once, between questions and sites that are written here."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from fedbus.aggregator.job.collecting import Collecting
from fedbus.aggregator.job.work import Outcome
from fedbus.core.job.answers import Answers
from fedbus.core.job.life import Job
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.evaluate import EvaluateSpec

SPEC = EvaluateSpec.parse({"kind": "evaluate", "name": "heart", "task": "t", "models": [{"file": "a"}]})


class Counting:
    """Two questions: what is each site's number?"""

    doing, noun, count, stream = "counting", "number", 2, ""
    layout: Layout | None = None

    def __init__(self) -> None:
        self.answers: Answers[int] = Answers()
        self.posed: list[int] = []

    def waits_for(self, active: Collection[str]) -> str:
        return ""

    def layout_said(self, site: str, digest: str) -> None:
        pass

    def site_started_anew(self, site: str) -> None:
        pass

    async def open(self) -> None:
        pass

    async def prepare(self, active: Collection[str]) -> bool:
        return True

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        return True

    async def pose(self, question: int) -> None:
        self.posed.append(question)

    def request(self, question: int) -> m.ScoreRequest:
        return m.ScoreRequest(job="heart", version=question)

    async def take(self, answer: m.ScoreAnswer) -> None:
        if answer.failed:
            self.answers.cannot(answer.version, answer.site, answer.failed)
        else:
            self.answers.take(answer.version, answer.site, answer.num_examples)

    async def again(self) -> None:
        pass

    def named(self, question: int) -> str:
        return f"number {question}"

    def details(self) -> Mapping[str, Any]:
        return {}

    async def close(self) -> Outcome:
        return Outcome(result={"numbers": [self.answers.of(question) for question in range(self.count)]})


class Asking:
    """A job that runs, with these sites there; what the sites are told is kept."""

    def __init__(self, *sites: str, score_timeout_s: float = 60.0, wall_time_s: float | None = None) -> None:
        self.told: list[tuple[str, int]] = []
        self.questions = Counting()
        self.life = Job(SPEC, wall_time_s=wall_time_s)
        tools: Any = SimpleNamespace(announcer=self, score_timeout_s=score_timeout_s)
        self.work = Collecting("heart", life=self.life, questions=self.questions, drop=lambda _: None, tools=tools)
        self.life.offered(now=0.0)
        for site in sites:
            self.life.accepted(site)

    async def tell(self, site: str, message: m.ScoreRequest) -> None:
        self.told.append((site, message.version))

    async def begins(self, *sites: str) -> None:
        self.work.sites_changed(frozenset(sites))
        await self.work.begin()
        self.life.started(now=time.monotonic())
        assert await self.step() is None

    async def step(self) -> str | None:
        return await self.work.step(ending=False)

    async def answers(self, site: str, question: int, number: int = 1, failed: str = "") -> None:
        await self.work.on_score(
            m.ScoreAnswer(site=site, job="heart", version=question, metrics={}, num_examples=number, failed=failed)
        )

    def asked(self) -> list[tuple[str, int]]:
        """What was asked since the last time."""
        told, self.told = self.told, []
        return told


async def test_every_site_is_asked_one_question_after_the_other_and_then_the_job_ends() -> None:
    asking = Asking("mercy", "ucsf")
    await asking.begins("mercy", "ucsf")
    assert asking.asked() == [("mercy", 0), ("ucsf", 0)]
    await asking.answers("mercy", 0, 3)
    assert await asking.step() is None
    assert (asking.asked(), asking.work.waiting_for()) == ([], "number 0 (1 of 2): waiting for ucsf")
    await asking.answers("ucsf", 0, failed="no data")
    assert await asking.step() is None
    assert asking.asked() == [("mercy", 1), ("ucsf", 1)]
    await asking.answers("mercy", 1, 4)
    await asking.answers("ucsf", 1, 5)
    reason = await asking.step()
    assert reason == "every site that is there was asked about 2 numbers"
    await asking.work.finish(reason)
    assert await asking.work.step_finishing()
    assert (await asking.work.conclude()).result["numbers"] == [{"mercy": 3}, {"mercy": 4, "ucsf": 5}]


async def test_a_site_that_comes_late_is_asked_what_it_has_missed() -> None:
    asking = Asking("mercy", "ucsf")
    await asking.begins("mercy")
    await asking.answers("mercy", 0)
    await asking.step()
    asking.asked()
    # when another one comes during the second question
    asking.work.sites_changed(frozenset({"mercy", "ucsf"}))
    await asking.step()
    assert asking.asked() == [("ucsf", 1)]
    await asking.answers("mercy", 1)
    await asking.answers("ucsf", 1)
    # then the first question is posed once more, for it alone
    assert await asking.step() is None
    assert (asking.asked(), asking.questions.posed) == ([("ucsf", 0)], [0, 1, 0])
    await asking.answers("ucsf", 0)
    assert await asking.step() is not None


async def test_a_site_that_is_silent_for_too_long_is_waited_for_no_more_and_may_still_answer() -> None:
    asking = Asking("mercy", "ucsf", score_timeout_s=0.0)
    await asking.begins("mercy", "ucsf")
    await asking.answers("mercy", 0)
    assert await asking.step() is None
    assert asking.asked()[2:] == [("mercy", 1), ("ucsf", 1)]
    await asking.answers("ucsf", 0, 7)
    await asking.answers("mercy", 1)
    assert await asking.step() is not None
    assert asking.questions.answers.of(0) == {"mercy": 1, "ucsf": 7}


async def test_a_site_that_was_restarted_is_asked_again_for_what_it_owes() -> None:
    asking = Asking("mercy", "ucsf")
    await asking.begins("mercy", "ucsf")
    asking.asked()
    await asking.answers("mercy", 0)
    for site in ("mercy", "ucsf"):
        asking.work.site_started_anew(site)
        await asking.work.welcome(site)
    assert asking.asked() == [("ucsf", 0)]


async def test_while_no_site_is_there_nothing_is_asked_and_nothing_ends() -> None:
    asking = Asking("mercy")
    await asking.begins("mercy")
    asking.work.sites_changed(frozenset())
    assert await asking.step() is None
    assert asking.questions.posed == [0]
    asking.work.sites_changed(frozenset({"mercy"}))
    await asking.answers("mercy", 0)
    await asking.step()
    await asking.answers("mercy", 1)
    assert await asking.step() is not None


async def test_it_ends_by_its_wall_time_with_what_was_answered() -> None:
    asking = Asking("mercy", wall_time_s=1e-9)
    asking.work.sites_changed(frozenset({"mercy"}))
    await asking.work.begin()
    asking.life.started(now=time.monotonic() - 1.0)
    assert await asking.step() == "the wall time of 1e-09 s is over"


async def test_what_a_site_says_that_takes_no_part_does_not_count() -> None:
    asking = Asking("mercy")
    await asking.begins("mercy")
    await asking.answers("evil", 0)
    assert asking.questions.answers.count == 0


async def test_an_answer_is_progress_and_waiting_is_none() -> None:
    asking = Asking("mercy")
    await asking.begins("mercy")
    before = asking.work.progress
    await asking.step()
    assert asking.work.progress == before
    await asking.answers("mercy", 0)
    assert asking.work.progress != before
