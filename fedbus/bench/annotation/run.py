"""Labels arrive one by one, site by site, at the folders of three MONAI Label servers, while one job trains.

Nobody restarts anything. What is measured is what a radiologist gets: each model that the first site hands back is
scored on studies of all sites that nobody annotates in the run. Beside it the same job on the first labels alone, which
tells what training longer would have brought without new ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from json import dumps
from pathlib import Path
from typing import Any

from fedbus.bench import jobs
from fedbus.bench.annotation.judge import Judge
from fedbus.bench.annotation.label_server import LabelFolder
from fedbus.bench.figures import Row, lines_of, row, time_of
from fedbus.errors import FedbusError
from fedbus.imaging.studies import Study, find_studies
from fedbus.local.federation import Daemon, LocalFederation, wait_until

LOOK_S = 0.1
LAST_MODEL_S = 20.0
LIMIT = timedelta(minutes=9)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. spec: of the job, without a stop rule. data: folders of studies by site.

    first: labels that the first site has when the job is submitted, which the job waits for; then one comes every
    `every_s` seconds, all of one site before those of the next. judged: studies of each site that are never annotated.
    versions: the job's length.
    """

    spec: Mapping[str, Any]
    data: Mapping[str, Path]
    first: int
    later: int
    every_s: float
    judged: int
    versions: int
    hand_back_every: int = 2


@dataclass(slots=True, kw_only=True)
class Course:
    """What a run came to: (seconds since the start, version, labels at the sites then, Dice) of each model."""

    points: list[tuple[float, int, int, float]] = field(default_factory=list)
    labels: int = 0


def rows(plan: Plan, *, say: Say) -> list[Row]:
    """Run with labels that arrive, and with the first ones alone."""
    judge = Judge(plan.spec["task_config"], {site: _split(plan, site)[1] for site in plan.data})
    found = []
    for name, later in (("labels arrive", plan.later), ("first labels alone", 0)):
        say(f"{name}:")
        course = _run(plan, judge, later=later, say=say)
        for at, version, labels, dice in course.points:
            found.append(row(f"{name}: dice of version {version} after {at:.0f} s, {labels} labels", dice, "dice"))
        found.append(row(f"{name}: labels at the end", course.labels, "labels"))
        found.append(row(f"{name}: dice at the end", course.points[-1][3], "dice"))
    return found


def _split(plan: Plan, site: str) -> tuple[Sequence[Study], Sequence[Study]]:
    """A site's studies to annotate and those to judge by."""
    studies = find_studies(plan.data[site]).labelled
    return studies[plan.judged :], studies[: plan.judged]


def _run(plan: Plan, judge: Judge, *, later: int, say: Say) -> Course:
    names = tuple(plan.data)
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-annotation-") as folder,
        LocalFederation(Path(folder), sites=names) as federation,
    ):
        queues = {site: list(_split(plan, site)[0]) for site in names}
        servers = {site: LabelFolder(Path(folder) / "label" / site) for site in names}
        for site, studies in queues.items():
            for study in studies:
                servers[site].add_study(study.id, study.image)
        aggregator = federation.start_aggregator()
        aggregator.wait_for("aggregator-ready", within=LIMIT)
        model = Path(folder) / "bundle" / "model.pt"
        model.parent.mkdir()
        daemons = [_start_site(federation, plan, site, servers[site], model) for site in names]
        spec = {**plan.spec, "min_new_labels": plan.first, "min_sites": 1, "stop": {"versions": plan.versions}}
        arriving = [(site, study) for site in names for study in queues[site]][: plan.first + later]
        job = jobs.submit(federation, spec)
        say(f"{job} waits for {plan.first} labels")
        for _ in range(plan.first):
            _annotate(servers, arriving.pop(0))
        return _watch(plan, aggregator, daemons[0], servers, arriving, model=model, judge=judge, say=say)


def _start_site(federation: LocalFederation, plan: Plan, site: str, server: LabelFolder, model: Path) -> Daemon:
    source: dict[str, object] = {"kind": "monailabel", "folder": str(server.folder), "poll_s": 1.0}
    if site == next(iter(plan.data)):
        source |= {"model_file": str(model), "hand_back_every": plan.hand_back_every}
    data = federation.folder / "data" / site
    return federation.start_site(site, data, source=dumps(source), status_interval_s=1.0)


def _annotate(servers: Mapping[str, LabelFolder], what: tuple[str, Study]) -> None:
    site, study = what
    if study.label is not None:
        servers[site].submit_file(study.id, study.label)


def _watch(
    plan: Plan,
    aggregator: Daemon,
    first: Daemon,
    servers: Mapping[str, LabelFolder],
    arriving: list[tuple[str, Study]],
    *,
    model: Path,
    judge: Judge,
    say: Say,
) -> Course:
    """Play the annotators, and score each model that comes back, until the job has ended."""
    began = _until(lambda: next(iter(lines_of(aggregator, "job-running")), None), aggregator)
    start = time_of(began)
    next_at = time.time() + plan.every_s
    course, seen = Course(labels=plan.first), 0
    deadline = time.monotonic() + LIMIT.total_seconds()
    while True:
        ended = lines_of(aggregator, "job-ended")
        for line in lines_of(first, "version-handed-back")[seen:]:
            seen += 1
            at, version = time_of(line) - start, int(line["version"])
            dice = judge.dice(model)
            course.points.append((at, version, course.labels, dice))
            say(f"version {version} after {at:.0f} s, {course.labels} labels: dice {dice:.3f}")
        last = course.points[-1][1] if course.points else 0
        if ended and (last >= plan.versions or time.time() - time_of(ended[0]) > LAST_MODEL_S):
            return _checked(course, aggregator, first)
        if arriving and time.time() >= next_at:
            _annotate(servers, arriving.pop(0))
            course.labels += 1
            next_at += plan.every_s
        if time.monotonic() > deadline:
            raise FedbusError(f"the job did not end in {LIMIT}:\n{aggregator.last_words()}")
        time.sleep(LOOK_S)


def _until(found: Callable[[], Any], daemon: Daemon) -> Any:
    return wait_until(found, within=LIMIT, what="the job to begin", or_else=daemon.last_words)


def _checked(course: Course, aggregator: Daemon, first: Daemon) -> Course:
    if not course.points:
        raise FedbusError(f"no model was handed back:\n{first.last_words()}\n{aggregator.last_words()}")
    return course
