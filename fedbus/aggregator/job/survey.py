"""What the sites of one job say of their data: asked once each, kept in the ledger, compared.

The plan with its salt is made once a job and kept beside the answers, so that prints of sites that answer before and
after a restart can be compared. `fedbus rm` deletes all of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from fedbus.aggregator.tools import Tools
from fedbus.core.check.losses import of_losses
from fedbus.core.check.report import FAULT, faults, findings, ranked
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.limits import MOST_REASON
from fedbus.core.protocol.statistics import LEAST, ClassLoss, Finding, Plan, Statistics
from fedbus.errors import StoreError

SALT_BYTES = 32
MOST_TOLD = 20
_PLAN = ""
"""Stands for the site in the row that keeps the plan."""
_LOSSES = "losses"
"""Stands for the request in rows that keep what a model makes of the labels."""
_LOSSES_OF_CLASSES: TypeAdapter[dict[str, ClassLoss]] = TypeAdapter(dict[str, ClassLoss])
_STATISTICS: TypeAdapter[Statistics] = TypeAdapter(Statistics)


class Survey:
    """Of one job. `open` comes first. `sites` are statistics by site, None of those that have none to give."""

    def __init__(
        self, job: str, *, tools: Tools, minimum: int = LEAST, bins: int = 10, duplicates: bool = True
    ) -> None:
        self._job = job
        self._tools = tools
        self._wanted = Plan(minimum=minimum, bins=bins, salt=secrets.token_hex(SALT_BYTES) if duplicates else "")
        self._id = secrets.token_hex(8)
        self._plan: Plan | None = None
        self.sites: dict[str, Statistics | None] = {}
        self.failed: dict[str, str] = {}
        self.losses: dict[str, Mapping[str, ClassLoss]] = {}
        self._told: set[Finding] = set()
        self._found: tuple[Finding, ...] = ()

    async def open(self) -> None:
        """Take up the plan and the answers that were kept, or keep a new plan."""
        if self._plan is not None:
            return
        rows = await self._tools.store(self._tools.ledger.findings.answers, self._job)
        for asked, site, body, _ in rows:
            if site == _PLAN:
                self._id, self._plan = asked, TypeAdapter(Plan).validate_python(body)
        if self._plan is None:
            self._plan = self._wanted
            kept = a.as_json(self._plan)
            await self._tools.store(
                self._tools.ledger.findings.add_answer, self._job, self._id, _PLAN, kept, failed="", at=time.time()
            )
        for asked, site, body, failed in rows:
            if asked == _LOSSES:
                self.losses[site] = _LOSSES_OF_CLASSES.validate_python(body)
            elif site != _PLAN:
                self._count(site, _STATISTICS.validate_python(body) if body else None, failed)
        await self._look()
        self._told = set(self._found)

    def request(self) -> m.StatisticsRequest:
        """What a site is asked."""
        if self._plan is None:
            raise StoreError(f"job {self._job}: statistics are asked for and there is no plan")
        return m.StatisticsRequest(job=self._job, id=self._id, plan=self._plan)

    def has(self, site: str) -> bool:
        """Whether a site has answered, or said that it cannot."""
        return site in self.sites or site in self.failed

    def forget(self, site: str) -> None:
        """A site was started anew: its data may be others now."""
        self.sites.pop(site, None)
        self.failed.pop(site, None)
        self._found = _compared(*self._known())

    async def take(self, answer: m.StatisticsAnswer) -> bool:
        """Keep an answer, and say what it shows; False when it answers another question."""
        if self._plan is None or answer.asked != self._id:
            return False
        failed, site = answer.failed[:MOST_REASON], answer.site
        body = {} if answer.statistics is None else a.as_json(answer.statistics)
        await self._tools.store(
            self._tools.ledger.findings.add_answer, self._job, self._id, site, body, failed=failed, at=time.time()
        )
        self._count(site, answer.statistics, failed)
        examples = None if answer.statistics is None else answer.statistics.examples
        await self._event(events.DataSaid(site=site, examples=examples, reason=failed))
        await self._look()
        return True

    async def take_losses(self, site: str, losses: Mapping[str, ClassLoss]) -> None:
        """Keep what the job's model makes of a site's labels; the newest counts."""
        body = a.as_json(dict(losses))
        await self._tools.store(
            self._tools.ledger.findings.add_answer, self._job, _LOSSES, site, body, failed="", at=time.time()
        )
        self.losses[site] = losses
        await self._look()

    def _count(self, site: str, statistics: Statistics | None, failed: str) -> None:
        self.sites.pop(site, None)
        self.failed.pop(site, None)
        if failed:
            self.failed[site] = failed
        else:
            self.sites[site] = statistics

    async def _look(self) -> None:
        """Compare: of many sites that takes a while, and nothing else is to wait for it."""
        self._found = await self._tools.compute(_compared, *self._known())

    def _known(self) -> tuple[dict[str, Statistics], dict[str, Mapping[str, ClassLoss]], int]:
        known = {site: found for site, found in self.sites.items() if found is not None}
        return known, dict(sorted(self.losses.items())), LEAST if self._plan is None else self._plan.minimum

    async def tell(self, *, all_of_them: bool) -> None:
        """Say what was found and was not said yet: faults at once, warnings when all have answered."""
        new = [one for one in self._found if one not in self._told and one.severity != "notice"]
        for one in new[:MOST_TOLD]:
            if all_of_them or one.severity == FAULT:
                self._told.add(one)
                site = one.sites[0] if len(one.sites) == 1 else events.NOBODY
                await self._event(events.DataSuspect(site=site, severity=one.severity, what=_sentence(one)))

    @property
    def faults(self) -> dict[str, str]:
        """Sites that are at fault, and why."""
        return faults(self._found)

    def report(self) -> a.CheckReport:
        """What was found, and the statistics behind it without prints."""
        known = {site: replace(found, prints=()) for site, found in self.sites.items() if found is not None}
        silent = {site: "its task has no statistics to give" for site, found in self.sites.items() if found is None}
        cannot = dict(sorted((silent | self.failed).items()))
        sites, losses = dict(sorted(known.items())), dict(sorted(self.losses.items()))
        return a.CheckReport(findings=self._found, sites=sites, cannot=cannot, losses=losses)

    async def _event(self, happened: events.Happened) -> None:
        await self._tools.announcer.event(self._job, happened)


def _compared(
    known: Mapping[str, Statistics], losses: Mapping[str, Mapping[str, ClassLoss]], minimum: int
) -> tuple[Finding, ...]:
    return ranked([*findings(known, minimum=minimum), *of_losses(losses)])


def _sentence(found: Finding) -> str:
    return f"{found.text} ({found.figure})" if found.figure else found.text
