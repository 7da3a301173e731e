"""What a job of the task `segmentation` reaches: with real daemons, pooled, and at each site alone.

    federated   a private RabbitMQ, an aggregator and a site daemon per folder of `data`; the last version, scored by
                every site on the studies that it keeps for testing
    pooled      one model trained on the training studies of all sites together, in one go: as many steps as the
                federated model has versions x local steps, with one optimizer that is never made anew
    alone       the same on each site's own studies
All are scored on the same studies: which those are follows from a study's id. `mean` is over all sites' studies.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from fedbus.bench import jobs
from fedbus.bench.figures import Row, lines_of, row, time_of
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import FedbusError
from fedbus.local.federation import LocalFederation
from fedbus.store.ledger import Ledger
from fedbus.tasks.segmentation import Segmentation
from fedbus.tasks.segmentation.cases import Prepared, prepare_site
from fedbus.tasks.segmentation.config import SegmentationConfig, read_config
from fedbus.training.run import Run
from fedbus.training.task import Scores

LIMIT = timedelta(minutes=30)
Say = Callable[[str], None]


def rows(job: Path, data: Path, *, baselines: bool, say: Say) -> list[Row]:
    """Run the job on the folders of `data`, and what it is compared with; rows of case, value, unit, goal, met."""
    spec = TrainingSpec.parse_yaml(job.read_text(encoding="utf-8"))
    sites = {folder.name: folder for folder in sorted(data.iterdir()) if folder.is_dir()}
    if len(sites) < spec.min_sites:
        raise FedbusError(f"expected {spec.min_sites} folders of sites in {data}, found {', '.join(sites) or 'none'}")
    found = _federated(spec, sites, say)
    if baselines:
        torch.set_num_threads(1)
        found += _baselines(spec, sites, say)
    return found


def _federated(spec: TrainingSpec, sites: Mapping[str, Path], say: Say) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, LocalFederation(Path(folder), sites=tuple(sites)) as federation:
        aggregator = federation.start_aggregator()
        for name, path in sites.items():
            federation.start_site(name, path, status_interval_s=1)
        aggregator.wait_for("aggregator-ready")
        job = jobs.submit(federation, spec.model_dump(mode="json"))
        say(f"job {job}")
        ended = aggregator.wait_for("job-ended", within=LIMIT, job=job)
        if ended["state"] != "finished":
            raise FedbusError(f"the job ended as {ended['state']}: {ended.get('reason')}")
        submitted, running, finishing = (
            time_of(lines_of(aggregator, event)[0]) for event in ("job-submitted", "job-running", "job-finishing")
        )
        with Ledger(federation.state_dir("aggregator") / "ledger.sqlite3") as ledger:
            result = dict(next(one for one in ledger.jobs() if one.job == job).result or {})
    seconds = [
        row("federated: submitted to finished", time_of(ended) - submitted, "s"),
        row("federated: training", finishing - running, "s"),
    ]
    waits = [
        row(f"federated: waits for data, {site}", 100 * numbers["data_wait"], "%", 5.0)
        for site, numbers in result["sites"].items()
    ]
    return [*seconds, *waits, *_dice_rows("federated", result["scores"])]


def _baselines(spec: TrainingSpec, sites: Mapping[str, Path], say: Say) -> list[Row]:
    config = read_config(spec.task_config)
    prepared = {name: prepare_site(path, config) for name, path in sites.items()}
    steps = (spec.local.steps or 1) * (spec.stop.versions or 1)
    everybody = _together(prepared)
    found = _dice_rows("pooled", _scored(spec, config, everybody, prepared, steps))
    say("pooled model scored")
    for name, own in prepared.items():
        found += _dice_rows(f"{name} alone", _scored(spec, config, own, prepared, steps))
        say(f"model of {name} alone scored")
    return found


def _together(prepared: Mapping[str, Prepared]) -> Prepared:
    """Training studies of all sites, as if they were one."""
    return Prepared(
        train=tuple(case for site in prepared.values() for case in site.train),
        test=(),
        labelled=tuple(sorted({channel for site in prepared.values() for channel in site.labelled})),
    )


def _scored(
    spec: TrainingSpec, config: SegmentationConfig, own: Prepared, sites: Mapping[str, Prepared], steps: int
) -> dict[str, dict[str, Any]]:
    """Train on `own` and score at every site."""
    device = torch.device("cpu")
    task = Segmentation.of(config, own, device)
    torch.manual_seed(spec.seed)
    model = task.model().train()
    task.train(model, Run(spec.local.model_copy(update={"steps": steps}), seed=spec.seed))
    model.eval()
    scores: dict[str, Scores] = {
        name: Segmentation.of(config, site, device).evaluate(model) for name, site in sites.items()
    }
    return {name: {"metrics": one.metrics, "num_examples": one.num_examples} for name, one in scores.items()}


def _dice_rows(case: str, scores: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Dice of each site; of each class, and of the classes of a study, the mean over the studies of all sites."""
    names = sorted({name for one in scores.values() for name in one["metrics"] if name.startswith("dice")})
    means = [row(f"{case}: mean {name}", _mean(name, scores), "") for name in names]
    each = [row(f"{case}: dice, {site}", one["metrics"]["dice"], "") for site, one in scores.items()]
    return [*means, *each]


def _mean(name: str, scores: Mapping[str, Mapping[str, Any]]) -> float:
    known = [(one["metrics"][name], one["num_examples"]) for one in scores.values() if name in one["metrics"]]
    return float(sum(value * studies for value, studies in known) / sum(studies for _, studies in known))
