"""The questions of a job that evaluates: what does each of the given models score on your own test data?

Each model is copied before the first site is asked, so that all sites score the same bytes. One at a time is in memory
and in the model log. A score counts for the model that was shown under its number; it is kept in the ledger under the
model's place in the spec.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fedbus.aggregator.incoming.room import available_bytes, check_room
from fedbus.aggregator.job.initial_params import InitialParams
from fedbus.aggregator.job.kept_versions import open_version
from fedbus.aggregator.job.local_models import local_file
from fedbus.aggregator.job.scored_model import scored_model, with_intervals
from fedbus.aggregator.job.verdicts import Drop
from fedbus.aggregator.job.work import Outcome
from fedbus.aggregator.model.given import GivenParams, copy_once
from fedbus.aggregator.model.keeper import announced_layout
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.aggregator.model.params_bytes import OfFile, ParamsBytes
from fedbus.aggregator.model.showing import Showing
from fedbus.aggregator.tools import Tools
from fedbus.core.job.answers import Answers
from fedbus.core.job.life import Job
from fedbus.core.job.scores import Score
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.limits import MOST_REASON
from fedbus.core.spec.evaluate import EvaluateSpec, ModelSpec
from fedbus.errors import DiskFullError, LayoutError, StoreError
from fedbus.export.params_file import check_fits, check_readable
from fedbus.store.files import make_folder

OpenLog = Callable[[Layout], Awaitable[ModelLogWriter]]


class GivenModels:
    """The models of one job, as files in a folder of their own; `jobs` has the folders of all jobs.

    Runs on the compute thread.
    """

    def __init__(self, spec: EvaluateSpec, *, folder: Path, jobs: Path, params: Path, tools: Tools) -> None:
        self._spec = spec
        self._folder = folder
        self._jobs = jobs
        self._params = params
        self._ledger = tools.ledger
        self._names: dict[int, str] = {}

    @property
    def file(self) -> str:
        """See `Origin`: the first model says it for all."""
        return self.named(0)

    def named(self, number: int) -> str:
        """A model in words."""
        return self._names.get(number) or self._spec.models[number].says

    def path(self, number: int) -> Path:
        return self._folder / f"{number:02d}.safetensors"

    def check(self) -> None:
        """Copy what is not copied yet. Raises LayoutError when a model is not there or is none."""
        make_folder(self._folder)
        for number, model in enumerate(self._spec.models):
            try:
                self._names[number] = copy_once(self.path(number), partial(self._open, model))
                check_readable(self.path(number))
            except DiskFullError:
                raise  # waited out
            except StoreError as exc:
                raise LayoutError(f"models.{number}: {exc}") from exc

    def _open(self, model: ModelSpec) -> tuple[str, ParamsBytes]:
        if model.file is not None:
            return model.says, OfFile(self._params / model.file)
        row = self._ledger.job(model.job or "")
        if row is None:
            raise StoreError(f"no job {model.job!r}: `fedbus jobs` lists them")
        if model.site is not None:
            return model.says, self._local(row.job, model.site)
        version, source = open_version(self._jobs / row.job, row, model.wanted)
        wanted = f" ({model.wanted})" if isinstance(model.wanted, str) else ""
        return f"{model.job}, version {version}{wanted}", source

    def _local(self, job: str, site: str) -> ParamsBytes:
        path = local_file(self._jobs / job, site)
        if not path.exists():
            there = ", ".join(sorted(file.stem for file in path.parent.glob("*.safetensors"))) or "none"
            text = f"{site} has left no local model in job {job} (evaluate_local, and share_local_model at the site)"
            raise StoreError(f"{text}; there are those of: {there}")
        return OfFile(path)

    def adopt(self, manifest: m.UpdateManifest) -> Layout:
        """Find out that every model fits the layout that a site says. Raises LayoutError when one does not."""
        layout = announced_layout(manifest)
        check_room(layout, available_bytes=available_bytes())
        for number in range(len(self._spec.models)):
            check_fits(self.path(number), layout)
        return layout

    def clear(self) -> None:
        """The copies are not needed any more."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Evaluating:
    """Of one job; see `collecting.Questions`. `open_log` declares the job's model log and returns its writer."""

    doing, noun = "scoring", "model"

    def __init__(
        self,
        job: str,
        spec: EvaluateSpec,
        *,
        life: Job,
        models: GivenModels,
        drop: Drop,
        open_log: OpenLog,
        tools: Tools,
    ) -> None:
        self.count = len(spec.models)
        self.stream = ""
        self.layout: Layout | None = None
        self.answers: Answers[Score] = Answers()
        self._job = job
        self._spec = spec
        self._life = life
        self._models = models
        self._open_log = open_log
        self._tools = tools
        self._showing: Showing | None = None
        self._initial = InitialParams(job, life=life, origin=models, drop=drop, tools=tools, adopted=self._adopted)

    def waits_for(self, active: Collection[str]) -> str:
        return self._initial.waits_for(active)

    def layout_said(self, site: str, digest: str) -> None:
        self._initial.layout_said(site, digest)

    def site_started_anew(self, site: str) -> None:
        self._initial.site_started_anew(site)

    # -------------------------------------------------------------- before the start

    async def open(self) -> None:
        row = await self._tools.store(self._tools.ledger.job, self._job)
        if row is None or row.layout is None:
            return
        await self._initial.check()
        await self._take_layout(Layout.from_dict(row.layout))
        for kept in await self._tools.store(self._tools.ledger.findings.scores, self._job, after=-1, until=self.count):
            self._count(kept.score.version, kept.site, kept.score, kept.failed)

    async def prepare(self, active: Collection[str]) -> bool:
        await self._initial.check()
        if self._life.state.ended or not self._life.can_start(active):
            return False
        if self.layout is None:
            await self._initial.see_to(active)
            return False
        return self._life.can_start(await self._initial.agreeing(self.layout, active))

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        return await self._initial.take(manifest, active, too_late=self.layout is not None)

    async def _adopted(self, layout: Layout) -> None:
        await self._tools.store(self._tools.ledger.set_job, self._job, layout=layout.to_dict())
        await self._take_layout(layout)

    async def _take_layout(self, layout: Layout) -> None:
        log = await self._open_log(layout)
        self.layout, self.stream = layout, log.stream
        self._showing = Showing(self._job, log=log, tools=self._tools)

    # -------------------------------------------------------------- asking

    def named(self, question: int) -> str:
        return self._models.named(question)

    async def pose(self, question: int) -> None:
        if self._showing is not None and self.layout is not None:
            path, chunk_bytes = self._models.path(question), self._spec.chunk_bytes
            given = await self._tools.compute(GivenParams, path, self.layout, chunk_bytes=chunk_bytes)
            await self._showing.show(given, what=question)

    def request(self, question: int) -> m.ScoreRequest:
        number = None if self._showing is None else self._showing.number(question)
        if number is None:
            raise StoreError(f"job {self._job}: model {question} is asked for and was not shown")
        against = 0 if self._spec.compare else -1
        return m.ScoreRequest(job=self._job, version=number, intervals=True, model=question, against=against)

    async def again(self) -> None:
        if self._showing is not None:
            await self._showing.again()

    async def take(self, answer: m.ScoreAnswer | m.StatisticsAnswer) -> None:
        if not isinstance(answer, m.ScoreAnswer):
            return
        question = None if self._showing is None else self._showing.what(answer.version)
        site = answer.site
        if question is None or self.answers.has(question, site):
            return
        score = Score.of(
            version=question,
            metrics=answer.metrics,
            num_examples=answer.num_examples,
            not_finite=answer.not_finite,
            spreads=answer.spreads,
            differences=answer.differences,
        )
        failed = answer.failed[:MOST_REASON]
        await self._tools.store(
            self._tools.ledger.findings.add_score, self._job, site, score, failed=failed, means={}, at=time.time()
        )
        self._count(question, site, score, failed)
        name = self.named(question)
        if failed:
            happened: events.Happened = events.ScoreFailed(site=site, version=question, what=name, reason=failed)
        else:
            happened = events.VersionScored(
                site=site,
                version=question,
                what=name,
                metrics=score.metrics,
                num_examples=score.num_examples,
                not_finite=score.not_finite,
            )
        await self._tools.announcer.event(self._job, happened)

    def _count(self, question: int, site: str, score: Score, failed: str) -> None:
        self.answers.ask(question)
        if failed:
            self.answers.cannot(question, site, failed)
        else:
            self.answers.take(question, site, score)

    # -------------------------------------------------------------- what came of it

    def details(self) -> Mapping[str, Any]:
        return {"models": tuple(self._scored(question) for question in range(self.count))}

    def _scored(self, question: int) -> a.ScoredModel:
        scores, failed = self.answers.of(question), self.answers.failures(question)
        return scored_model(self.named(question), scores, failed=failed, models=self.count)

    async def close(self) -> Outcome:
        models = [
            await self._tools.compute(with_intervals, self._scored(question), self.answers.of(question))
            for question in range(self.count)
        ]
        await self._tools.compute(self._models.clear)
        reasons = {why for model in models for why in model.failed.values()}
        nothing = not any(model.scores for model in models)
        failed = f"no site could score a model: {'; '.join(sorted(reasons)) or 'none answered'}" if nothing else ""
        return Outcome(result={"models": [a.as_json(model) for model in models]}, failed=failed)
