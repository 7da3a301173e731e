"""Which work a job of each kind is; a new kind has a line here and one in `core.spec.kinds`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from fedbus.aggregator.incoming.complete import Complete
from fedbus.aggregator.job.checking import Checking, Gate
from fedbus.aggregator.job.collecting import Collecting
from fedbus.aggregator.job.evaluate import Evaluating, GivenModels
from fedbus.aggregator.job.initial_params import LAYOUTS_WAIT
from fedbus.aggregator.job.origins import origin_of
from fedbus.aggregator.job.survey import Survey
from fedbus.aggregator.job.training import Training
from fedbus.aggregator.job.verdicts import Drop
from fedbus.aggregator.job.work import Work
from fedbus.aggregator.model import bodies
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.aggregator.tools import Tools
from fedbus.core.job.life import Job
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec import kinds
from fedbus.core.spec.check import CheckSpec
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import StoreError
from fedbus.store.files import make_folder
from fedbus.store.rows import JobRow
from fedbus.store.spool import Spool

OpenLog = Callable[[str, JobSpec, Layout], Awaitable[ModelLogWriter]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the aggregator keeps things. `open_log` declares a job's model log and returns its writer.

    jobs: the folder with a folder for each job. params: the folder with the files that specs name.
    """

    jobs: Path
    params: Path
    spool: Spool
    open_log: OpenLog
    layouts_wait: timedelta = LAYOUTS_WAIT


def work_of(row: JobRow, *, complete: Complete, place: Place, tools: Tools) -> Work:
    """The work of a job, not opened yet. Raises JobSpecError when this release cannot read its spec."""
    spec = kinds.parse(row.spec)
    match spec:
        case TrainingSpec():
            return _training(row.job, spec, complete=complete, place=place, tools=tools)
        case EvaluateSpec():
            return _evaluating(row.job, spec, place=place, tools=tools)
        case CheckSpec():
            return _checking(row.job, spec, place=place, tools=tools)
        case _:
            raise StoreError(f"job {row.job} is of kind {row.spec.get('kind')!r}, for which nothing is installed")


def _training(job: str, spec: TrainingSpec, *, complete: Complete, place: Place, tools: Tools) -> Training:
    keeper = ModelKeeper(
        job,
        spec,
        ledger=tools.ledger,
        spool=place.spool,
        folder=make_folder(place.jobs / job),
        reached=tools.reached,
    )
    return Training(
        job,
        spec,
        complete=complete,
        keeper=keeper,
        origin=origin_of(spec, keeper, job=job, jobs=place.jobs, params=place.params, ledger=tools.ledger),
        tools=tools,
        open_log=partial(place.open_log, job, spec),
        layouts_wait=place.layouts_wait,
        gate=Gate(Survey(job, tools=tools), tools=tools) if spec.check else None,
    )


def _evaluating(job: str, spec: EvaluateSpec, *, place: Place, tools: Tools) -> Collecting:
    drop = _dropping(job, place=place, tools=tools)
    life = Job(spec, wall_time_s=spec.wall_time_s)
    folder = make_folder(place.jobs / job) / "models"
    models = GivenModels(spec, folder=folder, jobs=place.jobs, params=place.params, tools=tools)
    open_log = partial(place.open_log, job, spec)
    questions = Evaluating(job, spec, life=life, models=models, drop=drop, open_log=open_log, tools=tools)
    return Collecting(job, life=life, questions=questions, drop=drop, tools=tools)


def _checking(job: str, spec: CheckSpec, *, place: Place, tools: Tools) -> Collecting:
    survey = Survey(job, tools=tools, minimum=spec.minimum, bins=spec.bins, duplicates=spec.duplicates)
    life = Job(spec, wall_time_s=spec.wall_time_s)
    return Collecting(
        job,
        life=life,
        questions=Checking(life=life, survey=survey),
        drop=_dropping(job, place=place, tools=tools),
        tools=tools,
        answer_within_s=spec.answer_within_s,
    )


def _dropping(job: str, *, place: Place, tools: Tools) -> Drop:
    def drop(update_id: str) -> None:
        bodies.delete(job, [update_id], ledger=tools.ledger, spool=place.spool)

    return drop
