"""The question of a job that checks data, and the check that comes before a training which asks for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fedbus.aggregator.job.survey import Survey
from fedbus.aggregator.job.work import Outcome
from fedbus.aggregator.tools import Tools
from fedbus.core.job.answers import Answers
from fedbus.core.job.life import Job
from fedbus.core.job.status_text import in_words
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.limits import MOST_TEXT, plain
from fedbus.core.protocol.statistics import ClassLoss
from fedbus.core.words import counted


class Checking:
    """One question: what do your data look like? See `collecting.Questions`."""

    doing, noun, count, stream = "checking data", "data set", 1, ""
    layout: Layout | None = None

    def __init__(self, *, life: Job, survey: Survey) -> None:
        self.answers: Answers[None] = Answers()
        self._life = life
        self._survey = survey

    def waits_for(self, active: Collection[str]) -> str:
        return ""

    def layout_said(self, site: str, digest: str) -> None:
        pass  # no params travel

    def site_started_anew(self, site: str) -> None:
        pass  # what it has said of its data stays

    async def open(self) -> None:
        await self._survey.open()
        for site in (*self._survey.sites, *self._survey.failed):
            self._count(site)

    async def prepare(self, active: Collection[str]) -> bool:
        return self._life.can_start(active)

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        return True

    async def pose(self, question: int) -> None:
        pass

    def request(self, question: int) -> m.StatisticsRequest:
        return self._survey.request()

    async def take(self, answer: m.ScoreAnswer | m.StatisticsAnswer) -> None:
        if isinstance(answer, m.StatisticsAnswer) and await self._survey.take(answer):
            self._count(answer.site)

    def _count(self, site: str) -> None:
        self.answers.ask(0)
        if site in self._survey.failed:
            self.answers.cannot(0, site, self._survey.failed[site])
        else:
            self.answers.take(0, site, None)

    async def again(self) -> None:
        pass  # there is no model log

    def named(self, question: int) -> str:
        return "statistics of the sites' data"

    def details(self) -> Mapping[str, Any]:
        return {"check": self._survey.report()}

    async def close(self) -> Outcome:
        await self._survey.tell(all_of_them=True)
        report = self._survey.report()
        why = "; ".join(dict.fromkeys(report.cannot.values())) or "none answered"
        failed = "" if report.sites else f"no site could say statistics of its data: {why}"
        return Outcome(result={"check": a.as_json(report)}, failed=failed, note=in_short(report))


class Gate:
    """Before a training: who takes part has answered, and is not at fault. Of one job."""

    def __init__(self, survey: Survey, *, tools: Tools) -> None:
        self._survey = survey
        self._tools = tools
        self._asked: set[str] = set()

    async def open(self) -> None:
        """Take up what sites have answered before a restart."""
        await self._survey.open()

    async def admission(self, site: str) -> str | None:
        """Why a site is left out; empty: it is not; None: not known yet, it has been asked."""
        if not self._survey.has(site):
            if site not in self._asked:
                self._asked.add(site)
                await self._survey.open()
                await self._tools.announcer.tell(site, self._survey.request())
            return None
        if why := self._survey.failed.get(site):
            return f"its data could not be checked: {why}"
        fault = self._survey.faults.get(site)
        return plain(f"the data check found a fault: {fault}", MOST_TEXT) if fault else ""

    def site_started_anew(self, site: str) -> None:
        """A site that was left out may have corrected its data: it is asked again; others are not."""
        self._asked.discard(site)
        if site in self._survey.failed or site in self._survey.faults:
            self._survey.forget(site)

    async def take(self, answer: m.StatisticsAnswer) -> None:
        """A site answers."""
        if await self._survey.take(answer):
            await self._survey.tell(all_of_them=False)

    async def take_losses(self, site: str, losses: Mapping[str, ClassLoss]) -> None:
        """A site says what the job's model makes of its labels."""
        await self._survey.take_losses(site, losses)

    async def tell(self) -> None:
        """The training starts, or has ended: what was found and not said yet is said."""
        await self._survey.tell(all_of_them=True)

    @property
    def waits_for(self) -> str:
        """Whose data are being checked, in words; empty: nobody's."""
        missing = sorted(site for site in self._asked if not self._survey.has(site))
        return f"the data of {in_words(missing)} are being checked" if missing else ""

    def report(self) -> a.CheckReport:
        """What was found."""
        return self._survey.report()


def in_short(report: a.CheckReport) -> str:
    """What a check came to, in a sentence."""
    severities = [one.severity for one in report.findings]
    parts = [counted(severities.count(word), word) for word in ("fault", "warning", "notice") if word in severities]
    return f"{', '.join(parts) or 'nothing'} found in the data of {counted(len(report.sites), 'site')}"
