"""Step budgets of a time-boxed job, told to the sites as they are measured. The rule is `core.rules.step_budget`'s."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from fedbus.aggregator.voice.announcer import Announcer
from fedbus.core.protocol import messages as m
from fedbus.core.rules.step_budget import StepBudgets
from fedbus.core.spec.training import TrainingSpec

log = structlog.get_logger()


class Pacing:
    """Budgets of one job's sites; does nothing in a job that is not time-boxed. Forgotten with the process."""

    def __init__(self, job: str, spec: TrainingSpec, announcer: Announcer) -> None:
        self._job = job
        self._announcer = announcer
        self._budgets = StepBudgets(spec.local.steps or 1) if spec.local.time_boxed else None
        self._told: dict[str, int] = {}

    async def measured(self, manifest: m.UpdateManifest, *, active: Collection[str]) -> None:
        """Take in how long an update took; its site is told when that changes what it should do next."""
        if self._budgets is None:
            return
        site = m.UpdateId.parse(manifest.update_id).site
        self._budgets.measured(site, steps=manifest.effort.steps, seconds=manifest.effort.seconds)
        steps = self._budgets.budget(site, active)
        if steps is not None and steps != self._told.get(site):
            self._told[site] = steps
            log.info("step-budget", job=self._job, site=site, steps=steps)
            await self._announcer.tell(site, m.StepBudget(job=self._job, steps=steps))

    async def remind(self, site: str) -> None:
        """A site has started anew and knows of no budget."""
        if site in self._told:
            await self._announcer.tell(site, m.StepBudget(job=self._job, steps=self._told[site]))
