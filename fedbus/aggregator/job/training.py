"""The work of a job that trains: updates become versions, versions are scored, and at last the best is known.

Updates and versions are `Folding`'s, scores `Scoring`'s, stop rules `core.job.training`'s; this file is when what
happens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from fedbus.aggregator.incoming.complete import Complete
from fedbus.aggregator.job.checking import Gate
from fedbus.aggregator.job.checkpointing import Checkpointing
from fedbus.aggregator.job.folding import Folding
from fedbus.aggregator.job.initial_params import InitialParams, Origin
from fedbus.aggregator.job.last_scores import LastScores
from fedbus.aggregator.job.local_models import LocalModels
from fedbus.aggregator.job.pacing import Pacing
from fedbus.aggregator.job.result import site_numbers
from fedbus.aggregator.job.scoring import Scoring, not_finite_text
from fedbus.aggregator.job.verdicts import refuse
from fedbus.aggregator.job.wanted_labels import WantedLabels
from fedbus.aggregator.job.work import Outcome
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.aggregator.model.showing import Showing
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.trouble import first_of
from fedbus.core.job.training import TrainingJob
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.answers import BrokenScore, BufferFill, as_json
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.statistics import LEAST
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Refused
from fedbus.core.spec.cross_site import cross_site_spec
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.core.words import counted

# Receipts wait for the last of the updates that are decided together.
MOST_TOGETHER = timedelta(seconds=0.1)

OpenLog = Callable[[Layout], Awaitable[ModelLogWriter]]


class Training:
    """Of one job; see `Work`. `open_log` declares the job's model log and returns its writer.

    gate: the data check that sites pass before they take part; None: the job asks for none.
    """

    doing = "training"

    def __init__(
        self,
        job: str,
        spec: TrainingSpec,
        *,
        complete: Complete,
        keeper: ModelKeeper,
        origin: Origin,
        tools: Tools,
        open_log: OpenLog,
        layouts_wait: timedelta,
        gate: Gate | None = None,
    ) -> None:
        self.life = TrainingJob(spec)
        self.aggregation = Aggregation(spec, now=time.monotonic())
        self.stream = self.redone = ""
        self._job = job
        self._spec = spec
        self._complete = complete
        self._keeper = keeper
        self._tools = tools
        self._open_log = open_log
        self._gate = gate
        self._pacing = Pacing(job, spec, tools.announcer)
        self._labels = WantedLabels(job, spec, life=self.life, tools=tools)
        self._checkpoints = Checkpointing(keeper, tools=tools)
        self._folding: Folding | None = None
        self._last_scores: LastScores | None = None
        self._locals: LocalModels | None = None
        self._initial = InitialParams(
            job,
            life=self.life,
            origin=origin,
            drop=keeper.drop,
            tools=tools,
            adopted=self._adopted,
            layouts_wait=layouts_wait,
        )
        self._scoring = Scoring(job, life=self.life, aggregation=self.aggregation, keeper=keeper, tools=tools)

    # -------------------------------------------------------------- what people see

    @property
    def layout(self) -> Layout | None:
        return None if self._folding is None else self._folding.layout

    @property
    def version(self) -> int:
        return self.aggregation.version

    @property
    def updates(self) -> int:
        return self.aggregation.updates

    @property
    def progress(self) -> tuple[int, ...]:
        return self.aggregation.version, self.aggregation.updates

    @property
    def rule(self) -> str | None:
        return self.aggregation.chosen

    def waits_to_start_for(self, active: Collection[str]) -> str:
        waits = self._labels.missing(active) or self._initial.waits_for(active) or self.life.waiting_for(active)
        checking = "" if self._gate is None else self._gate.waits_for
        return f"{waits}; {checking}" if checking else waits

    def waiting_for(self) -> str:
        if self.life.state is m.JobState.FINISHING:
            missing = ", ".join(site for _, site in self.life.missing_scores()) or "nobody"
            return f"{self.life.reason}; waiting for scores of {missing}"
        return self.aggregation.waiting_for()

    def remarks(self) -> str:
        return not_finite_text(self.life)

    @property
    def paused(self) -> str:
        return self.aggregation.too_few

    def site_numbers(self) -> dict[str, dict[str, object]]:
        return site_numbers(self.aggregation, self.life.participants)

    def details(self) -> dict[str, Any]:
        not_finite = self.life.not_finite.items()
        have, size = self.aggregation.buffer_fill
        return {
            "buffer": BufferFill(have=have, size=size),
            "check": None if self._gate is None else self._gate.report(),
            "means": self.life.means(),
            "not_finite": {
                site: BrokenScore(version=score.version, metrics=score.not_finite) for site, score in not_finite
            },
        }

    # -------------------------------------------------------------- what sites say

    def layout_said(self, site: str, digest: str) -> None:
        self._initial.layout_said(site, digest)

    def site_started_anew(self, site: str) -> None:
        self._initial.site_started_anew(site)
        if self._gate is not None:
            self._gate.site_started_anew(site)

    def sites_changed(self, active: frozenset[str]) -> None:
        self.aggregation.set_active(active, now=time.monotonic())
        self.life.set_active(active)

    async def welcome(self, site: str) -> None:
        await self._pacing.remind(site)
        if self._last_scores is not None:
            await self._last_scores.remind(site)

    async def on_score(self, score: m.ScoreAnswer) -> None:
        if self._locals is not None and score.site in self.life.accepted_sites:
            self._locals.promised(score.site, score.local)
        version = score.version if self._last_scores is None else self._last_scores.version_of(score.version)
        await self._scoring.take(replace(score, version=version))
        if self._gate is not None and score.losses and score.site in self.life.accepted_sites:
            await self._gate.take_losses(score.site, score.losses)

    async def admission(self, site: str) -> str | None:
        return "" if self._gate is None else await self._gate.admission(site)

    async def on_statistics(self, answer: m.StatisticsAnswer) -> None:
        if self._gate is not None:
            await self._gate.take(answer)

    def snapshot_wanted(self) -> None:
        if self._folding is not None:
            self._folding.snapshot_wanted = True

    # -------------------------------------------------------------- start

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Checkpoints are written; the last one is there when this is left."""
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._checkpoints.run(), name=f"job {self._job} checkpoints")
                yield
                await self._checkpoints.written()
                writing.cancel()
        except BaseExceptionGroup as failures:
            raise first_of(failures) from None

    async def open(self) -> None:
        await self._scoring.restore()
        if self._gate is not None:
            await self._gate.open()
        row = await self._tools.store(self._tools.ledger.job, self._job)
        if row is not None and row.layout is not None:
            self._folding = await self._make_folding(Layout.from_dict(row.layout))
            await self._folding.restore()
            self.redone = self._folding.redone

    async def prepare(self, active: Collection[str]) -> bool:
        await self._initial.check()
        if self.life.state.ended or not self.life.can_start(active):
            return False
        if await self._labels.are_missing(active):
            return False
        if self._folding is None:
            await self._initial.see_to(active)
            return False
        return self.life.can_start(await self._initial.agreeing(self._folding.layout, active))

    async def begin(self) -> None:
        if self._gate is not None:
            await self._gate.tell()
        if self._folding is not None:
            await self._folding.publish_first()
        self.aggregation.restart_timers(now=time.monotonic())

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        return await self._initial.take(manifest, active, too_late=self._folding is not None)

    async def _adopted(self, layout: Layout) -> None:
        await self._tools.store(self._tools.ledger.set_job, self._job, layout=layout.to_dict())
        self._folding = await self._make_folding(layout)

    async def _make_folding(self, layout: Layout) -> Folding:
        log = await self._open_log(layout)
        self.stream = log.stream
        keeper = self._keeper
        if self._spec.evaluate_local:
            folder = keeper.best_folder.parent
            self._locals = LocalModels(self._job, folder=folder, layout=layout, keeper=keeper, tools=self._tools)
        self._last_scores = LastScores(
            self._job,
            life=self.life,
            layout=layout,
            keeper=self._keeper,
            best=lambda: self._scoring.best,
            local_models=self._locals,
            showing=Showing(self._job, log=log, tools=self._tools),
            tools=self._tools,
            losses=0 if self._gate is None else LEAST,
        )
        return Folding(
            self._job,
            self._spec,
            layout,
            aggregation=self.aggregation,
            keeper=self._keeper,
            checkpoints=self._checkpoints,
            log=log,
            tools=self._tools,
        )

    # -------------------------------------------------------------- run

    def due_at(self, *, now: float) -> float | None:
        # nothing is committed while nobody is there, so a buffer that is due does not count
        return self.aggregation.next_due_at(now=now) if self.aggregation.active else None

    async def take(self, manifest: m.UpdateManifest, *, ending: bool) -> None:
        """Take an update and those that wait behind it, until something is due: one write for all decisions."""
        if self._folding is None:
            return await self.refuse(manifest, "the job has no params yet")
        until = time.monotonic() + MOST_TOGETHER.total_seconds()
        taken: m.UpdateManifest | None = manifest
        while taken is not None:
            await self._pacing.measured(taken, active=self.aggregation.active)  # told before the receipt
            await self._folding.take(taken)
            taken = self._complete.next_delta() if self._may_go_on(until) else None
        if not ending and self._version_due():
            return await self._folding.commit()
        return await self._folding.settle()

    def _version_due(self) -> bool:
        # right after a restart no site has come back yet: a buffer must not be committed for their absence
        return bool(self.aggregation.active and self.aggregation.commit_due(now=time.monotonic()))

    def _may_go_on(self, until: float) -> bool:
        now = time.monotonic()
        return now < until and not self.aggregation.commit_due(now=now) and not self._stop_reason(now)

    def _stop_reason(self, now: float) -> str | None:
        return self.life.stop_reason(version=self.aggregation.version, updates=self.aggregation.updates, now=now)

    async def take_local(self, manifest: m.UpdateManifest) -> None:
        if self._locals is None:
            return await self.refuse(manifest, "the job asks for no local model")
        return await self._locals.take(manifest, self.life.accepted_sites)

    async def refuse(self, manifest: m.UpdateManifest, reason: str) -> None:
        if manifest.kind is not m.UpdateKind.DELTA:  # no update of the model, so that it counts as none
            await refuse(manifest, reason, tools=self._tools, drop=self._keeper.drop)
            return
        verdict = self.aggregation.refuse(m.UpdateId.parse(manifest.update_id), reason=reason)
        if self._folding is not None and isinstance(verdict, Refused):
            await self._folding.refused(verdict, manifest)
        elif isinstance(verdict, Refused):
            await refuse(manifest, reason, tools=self._tools, drop=self._keeper.drop)

    async def step(self, *, ending: bool) -> str | None:
        if self._folding is None:
            return None
        if not ending and self._version_due():
            await self._folding.commit()
        await self._folding.tell()
        await self._folding.snapshot_if_wanted()
        await self._scoring.keep_version()
        return None if ending else self._stop_reason(time.monotonic())

    # -------------------------------------------------------------- end

    async def finish(self, reason: str) -> str:
        if self._folding is not None and self.aggregation.buffer and not self.aggregation.kept_back:
            await self._folding.commit("the job ends")
        if self.aggregation.buffer:
            reason = self._with_left_out(reason)
        elif self._folding is not None:
            await self._folding.save()
        self.life.finishing(reason, now=time.monotonic(), score=[self.version])
        return f"every site scores version {self.version}"

    def _with_left_out(self, reason: str) -> str:
        """Why the job ends, and that what was folded last is part of no version."""
        updates = counted(len(self.aggregation.buffer), "update")
        text = f"the last {updates} became no version, for {self.aggregation.kept_back}"
        return reason if "became no version" in reason else f"{reason}; {text}"

    async def step_finishing(self) -> bool:
        if self._folding is None or self._last_scores is None:
            return True
        if self._folding.snapshot_wanted and await self._last_scores.again():
            self._folding.snapshot_wanted = False  # what is scored is newer than the last version
        await self._folding.snapshot_if_wanted()
        return await self._last_scores.are_in(self.version)

    async def conclude(self) -> Outcome:
        outcome = await self._scoring.conclude(has_params=self._folding is not None)
        more: dict[str, object] = {}
        if self._gate is not None:
            await self._gate.tell()
            more["check"] = as_json(self._gate.report())
        if self._locals is not None:
            more["local_models"] = self._locals.there
        result = {**outcome.result, **more}
        return replace(outcome, result=result, follow_up=self._follow_up(result))

    def _follow_up(self, result: Mapping[str, Any]) -> JobSpec | None:
        """Every site scores the local models that are there, too, beside the versions that they are compared to."""
        if not (local := result.get("local_models")):
            return None
        best = (result.get("best") or {}).get("version")
        return cross_site_spec(
            self._job, self._spec.to_dict(), best=best, last=self.version, local=local, sites=result["sites"]
        )
