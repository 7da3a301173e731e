"""What a site owes in statistics of its data: for whoever asks, and for itself before it trains.

A site that is set to refuse looks at its own data first, by itself: nothing of that look leaves but the refusal, and
in words that name a kind. The whole finding stands in the site's own log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from fedbus.core.check.report import findings, refusals
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.statistics import Finding, Plan, Statistics
from fedbus.core.spec.check import CheckSpec
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.site.job import assignment
from fedbus.site.job.trainer import Trainer, reply_of
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerDiedError, TrainerFailedError
from fedbus.site.trouble_log import log_notes, log_trouble
from fedbus.training import protocol as p
from fedbus.training.sayable import Sayable

log = structlog.get_logger()
Say = Callable[[m.StatisticsAnswer | m.OfferAnswer], Awaitable[None]]


class DataDuty:
    """Of one job. wanted: what was asked for and not answered yet. now: told that the data are looked at."""

    def __init__(self, job: str, spec: JobSpec, *, settings: SiteSettings, say: Say, now: Callable[[], None]) -> None:
        self._job = job
        self._spec = spec
        self._settings = settings
        self._say = say
        self._now = now
        self._looks = isinstance(spec, TrainingSpec) and bool(settings.refuse_on)
        self.is_all = isinstance(spec, CheckSpec)
        """Whether the job wants nothing else."""
        self.wanted: m.StatisticsRequest | None = None
        self._seen: Statistics | None = None
        self.refused = False
        """Whether the site trains not, for what it found in its data."""

    async def see_to(self, trainer: Trainer) -> None:
        """Answer what is asked, and look at the own data once. Raises TrainerDiedError."""
        while (wanted := self.wanted) is not None:
            await self._answer(trainer, wanted)
            if self.wanted is wanted:
                self.wanted = None
        if self._looks:
            self._looks = False
            await self._look(trainer)

    async def _answer(self, trainer: Trainer, wanted: m.StatisticsRequest) -> None:
        site = self._settings.site_name
        try:
            statistics = await self._examined(trainer, wanted.plan)
        except TrainerFailedError as exc:
            log_trouble("statistics-failed", self._job, exc)
            return await self._say(assignment.statistics_answer(self._job, site, wanted.id, None, why=exc.said))
        except TrainerDiedError as exc:
            self.wanted = None  # what kills a trainer once kills the next one too
            await self._say(assignment.statistics_answer(self._job, site, wanted.id, None, why=exc.said))
            raise
        return await self._say(assignment.statistics_answer(self._job, site, wanted.id, statistics))

    async def _examined(self, trainer: Trainer, plan: Plan) -> Statistics | None:
        self._now()
        command = assignment.examining(self._job, self._spec, self._settings, plan)
        reply = await reply_of(p.Examined, trainer, command)
        log_notes(self._job, reply.notes)
        if reply.statistics is not None:
            for found in self._findings(reply.statistics):
                log.warning(
                    "data-finding", job=self._job, severity=found.severity, text=found.text, figure=found.figure
                )
        self._seen = reply.statistics
        return reply.statistics

    def _findings(self, statistics: Statistics) -> tuple[Finding, ...]:
        return findings({self._settings.site_name: statistics}, minimum=self._settings.min_count)

    async def _look(self, trainer: Trainer) -> None:
        try:
            statistics = self._seen or await self._examined(trainer, Plan(minimum=self._settings.min_count))
        except TrainerFailedError as exc:
            return log_trouble("statistics-failed", self._job, exc)  # opening the task says it as well
        found = () if statistics is None else self._findings(statistics)
        kinds = sorted({one.kind for one in refusals(found, self._settings.refuse_on or ())})
        if kinds:
            why = Sayable(f"the site refuses to train on its own data: {', '.join(kinds)}; its log says more")
            log.error("refused-to-train", job=self._job, text=why)
            self.refused = True
            await self._say(assignment.declining(self._job, self._settings.site_name, why))
        return None
