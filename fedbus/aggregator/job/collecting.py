"""The work of a job that asks: every site answers every question once, and nothing is trained.

    ask      the questions come one after the other; of each, every site that is there and was not asked yet
    collect  what a site answers, or why it cannot, is durable when it is taken
    end      when every site that is there was asked everything; one that is silent for too long is waited for no more

A site that comes late is asked what it has missed, one that was restarted what it owes. What the questions are is the
kind's: see `Questions`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Protocol

from fedbus.aggregator.job.verdicts import Drop, refuse
from fedbus.aggregator.job.work import SITES_RETURN, Outcome
from fedbus.aggregator.tools import Tools
from fedbus.core.job.answers import Answers
from fedbus.core.job.life import Job
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.words import counted

Request = m.ScoreRequest | m.StatisticsRequest
Answer = m.ScoreAnswer | m.StatisticsAnswer


class Questions(Protocol):
    """What the sites of one job are asked; questions are numbered from 0 on.

    doing: what the sites do, in a word. noun: what a question is about. count: how many there are. stream: the name of
    the job's model log; "" without one.
    """

    doing: str
    noun: str
    count: int
    answers: Answers[Any]

    @property
    def stream(self) -> str: ...
    @property
    def layout(self) -> Layout | None: ...

    def waits_for(self, active: Collection[str]) -> str:
        """What keeps enough sites from a start, in words; empty: nothing does."""

    def layout_said(self, site: str, digest: str) -> None:
        """A site's task is open and makes params of this layout."""

    def site_started_anew(self, site: str) -> None:
        """A site's task may be another one now."""

    async def open(self) -> None:
        """Take up what was there before a restart: the answers, too."""

    async def prepare(self, active: Collection[str]) -> bool:
        """Do what comes before the start; True when enough sites can be asked."""

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        """Take or refuse what a site made before the start; False: it takes part no more."""

    async def pose(self, question: int) -> None:
        """See to it that sites can answer the question."""

    def request(self, question: int) -> Request:
        """What a site is told, once the question was posed."""

    async def take(self, answer: Answer) -> None:
        """A site answers; what answers no question of these is not for them."""

    async def again(self) -> None:
        """Some site cannot follow the model log."""

    def named(self, question: int) -> str:
        """The question in words."""

    def details(self) -> Mapping[str, Any]:
        """What has been answered so far: fields of `answers.JobDetail`."""

    async def close(self) -> Outcome:
        """The result, and why it is none; what was kept for asking is not needed any more."""


class Collecting:
    """Of one job; see `Work`. `drop` deletes the body of an update, which nobody has asked for.

    answer_within_s: how long a silent site is waited for; None: as long as for scores.
    """

    redone = ""
    version = updates = rule = None
    paused = ""

    def __init__(
        self,
        job: str,
        *,
        life: Job,
        questions: Questions,
        drop: Drop,
        tools: Tools,
        answer_within_s: float | None = None,
    ) -> None:
        self.life = life
        self.doing = questions.doing
        self._job = job
        self._questions = questions
        self._drop = drop
        self._tools = tools
        self._wait_s = tools.score_timeout_s if answer_within_s is None else answer_within_s
        self._asked: set[tuple[int, str]] = set()
        self._posed: int | None = None
        self._wait_until = 0.0
        self._not_before = 0.0
        self._snapshot_wanted = False

    # -------------------------------------------------------------- what people see

    @property
    def stream(self) -> str:
        return self._questions.stream

    @property
    def layout(self) -> Layout | None:
        return self._questions.layout

    @property
    def progress(self) -> tuple[int, ...]:
        return self._posed or 0, self._questions.answers.count

    def waits_to_start_for(self, active: Collection[str]) -> str:
        return self._questions.waits_for(active) or self.life.waiting_for(active)

    def waiting_for(self) -> str:
        if self._posed is None:
            return "waiting for a site"
        missing = ", ".join(self._missing(self._posed)) or "nobody"
        what = self._questions.named(self._posed)
        return f"{what} ({self._posed + 1} of {self._questions.count}): waiting for {missing}"

    def remarks(self) -> str:
        return ""

    def site_numbers(self) -> dict[str, dict[str, object]]:
        return {site: {} for site in sorted(self.life.participants)}

    def details(self) -> dict[str, Any]:
        return dict(self._questions.details())

    # -------------------------------------------------------------- what sites say

    def layout_said(self, site: str, digest: str) -> None:
        self._questions.layout_said(site, digest)

    def site_started_anew(self, site: str) -> None:
        self._questions.site_started_anew(site)
        self._asked = {key for key in self._asked if key[1] != site or key[0] == self._posed}

    def sites_changed(self, active: frozenset[str]) -> None:
        self.life.set_active(active)

    async def welcome(self, site: str) -> None:
        if self._posed is not None and site in self._missing(self._posed):
            await self._ask(self._posed, site)

    async def on_score(self, score: m.ScoreAnswer) -> None:
        if score.site in self.life.accepted_sites:
            await self._questions.take(score)

    async def admission(self, site: str) -> str | None:
        return ""

    async def on_statistics(self, answer: m.StatisticsAnswer) -> None:
        if answer.site in self.life.accepted_sites:
            await self._questions.take(answer)

    def snapshot_wanted(self) -> None:
        self._snapshot_wanted = True

    # -------------------------------------------------------------- start

    def beside(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def open(self) -> None:
        await self._questions.open()
        self._not_before = time.monotonic() + SITES_RETURN.total_seconds()

    async def prepare(self, active: Collection[str]) -> bool:
        return await self._questions.prepare(active)

    async def begin(self) -> None:
        self._not_before = 0.0
        await self._pose(0)

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        return await self._questions.take_initial(manifest, active)

    async def take(self, manifest: m.UpdateManifest, *, ending: bool) -> None:
        await self.refuse(manifest, "the job trains nothing")

    async def take_local(self, manifest: m.UpdateManifest) -> None:
        await self.refuse(manifest, "the job trains nothing")

    async def refuse(self, manifest: m.UpdateManifest, reason: str) -> None:
        await refuse(manifest, reason, tools=self._tools, drop=self._drop)

    # -------------------------------------------------------------- ask and collect

    def due_at(self, *, now: float) -> float | None:
        return self._wait_until if self._posed is not None and self._missing(self._posed) else None

    async def step(self, *, ending: bool) -> str | None:
        now = time.monotonic()
        if (over := self.life.wall_time_over(now=now)) is not None or ending:
            return over
        if self._snapshot_wanted:
            self._snapshot_wanted = False
            await self._questions.again()
        if self._posed is not None:
            await self._ask_who_is_new(self._posed)
            if self._missing(self._posed) and now < self._wait_until:
                return None
        return await self._next(now)

    async def _next(self, now: float) -> str | None:
        """Go on to a question that some site was not asked; why the job ends when there is none."""
        owed = (q for q in range(self._questions.count) if self._not_asked(q))
        question = next(owed, None)
        if question is not None:
            await self._pose(question)
            await self._ask_who_is_new(question)
            return None
        if not self.life.active or now < self._not_before:
            return None
        return f"every site that is there was asked about {counted(self._questions.count, self._questions.noun)}"

    async def _pose(self, question: int) -> None:
        await self._questions.pose(question)
        self._questions.answers.ask(question)
        self._posed = question
        self._wait_until = time.monotonic() + self._wait_s

    async def _ask_who_is_new(self, question: int) -> None:
        for site in self._not_asked(question):
            self._wait_until = time.monotonic() + self._wait_s
            await self._ask(question, site)

    async def _ask(self, question: int, site: str) -> None:
        self._asked.add((question, site))
        await self._tools.announcer.tell(site, self._questions.request(question))

    def _not_asked(self, question: int) -> list[str]:
        """Sites that are there, have not answered the question and were not asked."""
        return [site for site in self._owing(question) if (question, site) not in self._asked]

    def _missing(self, question: int) -> list[str]:
        """Sites that are there, were asked and have not answered."""
        return [site for site in self._owing(question) if (question, site) in self._asked]

    def _owing(self, question: int) -> list[str]:
        answers = self._questions.answers
        return sorted(site for site in self.life.active if not answers.has(question, site))

    # -------------------------------------------------------------- end

    async def finish(self, reason: str) -> str:
        self.life.finishing(reason, now=time.monotonic())
        return "the answers are put together"

    async def step_finishing(self) -> bool:
        return True

    async def conclude(self) -> Outcome:
        outcome = await self._questions.close()
        return Outcome(
            result={"sites": self.site_numbers(), **outcome.result},
            failed=outcome.failed,
            note=outcome.note,
        )
