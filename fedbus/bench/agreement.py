"""Does virtual time tell the truth? The same job with real daemons and in the simulator: virtual seconds to its target.

Eight sites train `digits`, the slowest ten times slower than the fastest, with a private RabbitMQ, an aggregator and
eight site daemons, each with its trainer. A pause after each step makes a training of so many virtual seconds last so
many times `scale_s`; what a real step, an upload and a commit take comes on top, and is small beside it. The target is
the job's own stop rule, so both sides are judged by the same scores of the same sites.

The clock runs from `job-running` to `job-finishing`. Trainers need seconds to load torch, and not equally many, so the
one that makes the initial params is stopped until all others are ready: the job begins for everyone at once.
"""

from __future__ import annotations

import json
import signal
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedbus.bench import jobs
from fedbus.bench.figures import Row, lines_of, row, time_of
from fedbus.core.spec.training import TrainingSpec
from fedbus.local.federation import Daemon, LocalFederation, wait_until
from fedbus.simulation import SimulatedSite, Simulation, constant, make_sites

SITES = tuple(f"site-{index}" for index in range(1, 9))
RATIO = 10.0
STEPS = 10
MOST_VIRTUAL_S = 300.0
SOON = timedelta(seconds=120)
GOAL = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One job: virtual seconds to its target, and the updates folded until then."""

    seconds: float
    updates: int


def rows(*, seeds: Sequence[int], scale_s: float, target: float) -> list[Row]:
    """Run both for each seed; rows of case, value, unit, goal, met."""
    ran = {"real daemons": _real(seeds, scale_s, target), "simulator": [_virtual(seed, target) for seed in seeds]}
    found = []
    for name, runs in ran.items():
        found += [row(f"{name}: seed {seed}", run.seconds, "virtual s") for seed, run in zip(seeds, runs, strict=True)]
        what = f"{name}: time to accuracy {target:g}, median of {len(seeds)}"
        found.append(row(what, statistics.median(run.seconds for run in runs), "virtual s"))
        pace = sum(run.updates for run in runs) / sum(run.seconds for run in runs)
        found.append(row(f"{name}: updates per virtual second", pace, "1/s"))
    real, virtual = (statistics.median(run.seconds for run in runs) for runs in ran.values())
    return [
        *found,
        row("real daemons / simulator", real / virtual, ""),
        row("off by", abs(real / virtual - 1), "", GOAL),
    ]


def periods_s() -> list[float]:
    """Virtual seconds of one training at each site."""
    return [RATIO ** (index / (len(SITES) - 1)) for index in range(len(SITES))]


def job(seed: int, target: float) -> dict[str, Any]:
    """The job of one seed; everything that is not here has its default."""
    return {
        "name": f"agreement-{seed}",
        "task": "digits",
        "task_config": {"shared_test": True, "split_seed": 1},
        "seed": seed,
        "local": {"steps": STEPS, "batch_size": 16, "learning_rate": 0.1},
        "stop": {"target": {"metric": "accuracy", "at_least": target}},
    }


def _virtual(seed: int, target: float) -> Ran:
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder:
        data = _data(Path(folder))
        sites: list[SimulatedSite] = make_sites(
            TrainingSpec.parse(job(seed, target)), list(map(constant, periods_s())), names=SITES, data=data
        )
    simulation = Simulation(TrainingSpec.parse(job(seed, target)), sites, seed=seed, evaluate_every_s=MOST_VIRTUAL_S)
    result = simulation.run(until_s=MOST_VIRTUAL_S)
    return Ran(seconds=result.ended_at, updates=result.updates)


def _real(seeds: Sequence[int], scale_s: float, target: float) -> list[Ran]:
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as name:
        data = _data(Path(name) / "data")
        with LocalFederation(Path(name), sites=SITES) as federation:
            aggregator = federation.start_aggregator()
            aggregator.wait_for("aggregator-ready")
            paces = [period * scale_s / STEPS for period in periods_s()]
            sites = [
                federation.start_site(site, data / site, step_delay_s=pace)
                for site, pace in zip(SITES, paces, strict=True)
            ]
            for site in sites:
                site.wait_for("site-ready", within=SOON)
            return [_train(federation, aggregator, sites, job(seed, target), scale_s) for seed in seeds]


def _train(
    federation: LocalFederation, aggregator: Daemon, sites: Sequence[Daemon], spec: dict[str, Any], scale_s: float
) -> Ran:
    """Train one job from its start until it has reached its target."""
    first, *others = sites
    name = jobs.submit(federation, spec)
    (trainer,) = wait_until(first.trainers, within=SOON, what="the trainer of the first site")
    trainer.send(signal.SIGSTOP)
    try:
        for site in others:
            site.wait_for("trainer-ready", within=SOON, job=name)
    finally:
        trainer.send(signal.SIGCONT)
    running = aggregator.wait_for("job-running", within=SOON, job=name)
    over = aggregator.wait_for("job-finishing", within=timedelta(minutes=10), job=name)
    aggregator.wait_for("job-ended", within=SOON, job=name)
    wait_until(lambda: not any(site.trainers() for site in sites), within=SOON, what="the end of all trainers")
    updates = sum(line["job"] == name for line in lines_of(aggregator, "update-folded"))
    return Ran(seconds=(time_of(over) - time_of(running)) / scale_s, updates=updates)


def _data(folder: Path) -> Path:
    """One folder per site, with its share."""
    for index, site in enumerate(SITES):
        (folder / site).mkdir(parents=True)
        (folder / site / "digits.json").write_text(json.dumps({"index": index, "sites": len(SITES)}), encoding="utf-8")
    return folder
