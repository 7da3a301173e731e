"""A site's scores of one job: made with a trainer that has loaded the version, or given up, and said either way.

A score that cannot be made costs nothing else. With the last score, where it is asked for, goes the site's local model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from fedbus.core.protocol import messages as m
from fedbus.site.job import assignment
from fedbus.site.job.hand_back import HandBack
from fedbus.site.job.local_trainings import LocalTrainings
from fedbus.site.job.score_duty import ScoreDuty
from fedbus.site.job.trainer import Trainer, reply_of
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerDiedError, TrainerFailedError
from fedbus.site.trouble_log import log_notes, log_trouble
from fedbus.training import protocol as p
from fedbus.training.sayable import Sayable

log = structlog.get_logger()


class Scoring:
    """Of one job; `duty` is what is owed.

    trainings: of which the local model is; None in a job that trains nothing. is_over: whether the job is, so that
    nobody waits for a score. on_settled: told that a version was scored or given up.
    """

    def __init__(
        self,
        job: str,
        duty: ScoreDuty,
        *,
        settings: SiteSettings,
        trainings: LocalTrainings | None,
        hand_back: HandBack,
        say: Callable[[m.ScoreAnswer], Awaitable[None]],
        is_over: Callable[[], bool],
        on_settled: Callable[[], None],
    ) -> None:
        self._job = job
        self._duty = duty
        self._site = settings.site_name
        self._min_count = settings.min_count
        self._trainings = trainings
        self._hand_back = hand_back
        self._say = say
        self._is_over = is_over
        self._on_settled = on_settled

    async def make(self, trainer: Trainer, version: int, *, layout_digest: str) -> None:
        """Score a version, or say that it cannot be scored; a task whose answer is none is not asked again.

        Raises TrainerDiedError.
        """
        asked = self._duty.request
        if self._duty.cannot is not None:
            return await self._give_up(version, self._duty.cannot, asked)
        try:
            command = assignment.score(version, asked, min_count=self._min_count)
            scored = await reply_of(p.Scored, trainer, command)
        except TrainerFailedError as exc:
            log_trouble("score-failed", self._job, exc, version=version)
            self._duty.cannot = exc.said if exc.fatal else None
            return await self._give_up(version, exc.said, asked)
        except TrainerDiedError as exc:
            if not self._is_over():
                await self._give_up(version, exc.said, asked)
            raise
        log_notes(self._job, scored.notes)
        self._hand_back.scored(version, scored.metrics)
        local = ""
        if asked is not None and asked.local and self._trainings is not None:
            local = self._trainings.send_local(layout_digest=layout_digest)
        self._settle(version, asked)  # only now: where there was no room for the local model it is scored anew
        return await self._say(
            assignment.score_answer(self._job, self._site, scored, asked=asked is not None, local=local)
        )

    async def give_up(self, why: Sayable) -> None:
        """Say that the version that is asked for, if one is, cannot be scored."""
        if self._duty.wanted is not None:
            await self._give_up(self._duty.wanted, why, self._duty.request)

    async def _give_up(self, version: int, why: Sayable, asked: m.ScoreRequest | None) -> None:
        log.warning("score-failed", job=self._job, version=version, text=why)
        self._settle(version, asked)
        await self._say(assignment.no_score(self._job, self._site, version, why))

    def _settle(self, version: int, asked: m.ScoreRequest | None) -> None:
        self._duty.done(version, asked)
        self._on_settled()
