"""What becomes of running statistics under every rule, optimizer and code; and whether to average them or leave them.

`rows` trains a network with batch normalisation in virtual time, six sites with speeds of 1 to 6, by synchronous FedAvg
in fp32 and by everything else, and says how far the final accuracy falls below. `scanner_rows` lets half of the sites
have another scanner and compares three answers: all averaged, statistics at home (`keep: [buffers]`), all of batch
normalisation at home (FedBN, `keep: [batch_norm]`).

Networks from elsewhere are used where they are installed: resnet18 (torchvision), densenet121 (monai).
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from fedbus.bench.figures import Row, row
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import SettingsError
from fedbus.simulation import SimulatedSite, Simulation, delays_of
from fedbus.simulation.sites import make_tasks
from fedbus.tensors.params import unflatten
from fedbus.tensors.sharing import Sharing, layout_of
from fedbus.training.run import Run
from fedbus.training.task import Scores, Task

SITES = tuple(f"site-{number}" for number in range(1, 7))
SPEEDS = "geometric:6"
FINAL_POINTS = 5
SIDES: Mapping[str, int] = {"digits": 8, "fashion_mnist": 28}
LOCAL: Mapping[str, Mapping[str, Any]] = {
    "digits": {"steps": 10, "batch_size": 16, "learning_rate": 0.1, "evaluate": False},
    "fashion_mnist": {"steps": 10, "batch_size": 32, "learning_rate": 0.05, "evaluate": False},
}
SYNC: Mapping[str, Any] = {"strategy": "sync", "codec": {"up": "fp32", "down": "fp32"}}
RULES: Mapping[str, Mapping[str, Any]] = {
    **{kind: {"strategy": kind} for kind in ("auto", "calibrated", "buffered", "fedasync", "sync")},
    **{f"auto, {kind}": {"server_optimizer": {"kind": kind}} for kind in ("momentum", "adam", "yogi", "fadas")},
    **{f"auto, {code}": {"codec": {"up": code, "down": code}} for code in ("fp32", "bf16", "int4")},
    "auto, topk": {"codec": {"up": {"kind": "topk", "ratio": 0.05}, "down": "int8"}},
}
ANSWERS: Mapping[str, list[str]] = {"averaged": [], "statistics at home": ["buffers"], "FedBN": ["batch_norm"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run: `keys` of the job beside the task's own; `config` of the task."""

    task: str
    network: str
    seed: int
    until_s: float
    keys: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """accuracy: mean of the last points. not_finite: points without a loss. lowest: smallest running variance."""

    accuracy: float
    not_finite: int
    lowest: float


def rows(*, task: str, network: str, seeds: int, until_s: float, workers: int, say: Callable[[str], None]) -> list[Row]:
    """Return figures of every rule against synchronous FedAvg, medians of `seeds` runs of `until_s` virtual seconds."""
    labels = {"synchronous FedAvg, fp32": SYNC, **RULES}
    cases = {
        label: [Case(task=task, network=network, seed=s, until_s=until_s, keys=keys) for s in range(seeds)]
        for label, keys in labels.items()
    }
    found = _run_all(cases, workers=workers, say=say)
    reference, *others = found.items()
    base = median(outcome.accuracy for outcome in reference[1])
    made = [row(f"{reference[0]}: accuracy", base, "")]
    for label, outcomes in others:
        below = base - median(outcome.accuracy for outcome in outcomes)
        made.append(row(f"{label}: accuracy below it", below, "", goal=0.01))
    everything = [outcome for outcomes in found.values() for outcome in outcomes]
    made.append(row("scores that are not finite, of all", sum(o.not_finite for o in everything), "", goal=0))
    lowest = min(outcome.lowest for outcome in everything)
    return [*made, row("lowest running variance of all, times -1", -lowest, "", goal=0)]


def scanner_rows(
    *,
    task: str,
    network: str,
    seeds: int,
    until_s: float,
    scale: float,
    shift: float,
    workers: int,
    say: Callable[[str], None],
) -> list[Row]:
    """Return the accuracy on each site's own scanner, where three of six sites see scale * pixel + shift."""
    config = {"scanner_sites": len(SITES) // 2, "scanner_scale": scale, "scanner_shift": shift}
    cases = {
        f"{strategy}, {answer}": [
            Case(
                task=task,
                network=network,
                seed=seed,
                until_s=until_s,
                keys={"strategy": strategy, "keep": keep},
                config=config,
            )
            for seed in range(seeds)
        ]
        for strategy in ("auto", "sync")
        for answer, keep in ANSWERS.items()
    }
    found = _run_all(cases, workers=workers, say=say)
    return [row(f"{label}: accuracy", median(o.accuracy for o in outcomes), "") for label, outcomes in found.items()]


def _run_all(
    cases: Mapping[str, Sequence[Case]], *, workers: int, say: Callable[[str], None]
) -> dict[str, list[Outcome]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        running = {label: [pool.submit(run_case, case) for case in some] for label, some in cases.items()}
        done: dict[str, list[Outcome]] = {}
        for label, futures in running.items():
            done[label] = [future.result() for future in futures]
            say(f"{label}: {', '.join(f'{o.accuracy:.3f}' for o in done[label])}")
    return done


def _one_thread() -> None:
    torch.set_num_threads(1)


def run_case(case: Case) -> Outcome:
    """Run a case in virtual time; the same case gives the same outcome."""
    built_in = case.network == "bn_cnn"
    spec = TrainingSpec.parse(
        {
            "name": "batch-norm",
            "task": case.task,
            "task_config": {"network": "bn_cnn", "alpha": 1.0, "shared_test": True, "split_seed": case.seed}
            | dict(case.config),
            "local": dict(LOCAL[case.task]),
            "stop": {"wall_time_s": 1e8},
        }
        | dict(case.keys)
    )
    tasks = make_tasks(spec, SITES)
    if not built_in:
        tasks = {name: Outside(task, case.network, side=SIDES[case.task]) for name, task in tasks.items()}
    delays = delays_of(SPEEDS, len(SITES), seed=case.seed)
    sites = [SimulatedSite(name=n, task=tasks[n], delay=d) for n, d in zip(SITES, delays, strict=True)]
    every_s = case.until_s / 20 if not built_in else max(1.0, case.until_s / 40)
    scorers = None if case.config else SITES[:1]
    simulation = Simulation(spec, sites, seed=case.seed, evaluate_every_s=every_s, scorers=scorers)
    result = simulation.run(until_s=case.until_s)
    final = [point.metrics.get("accuracy", 0.0) for point in result.points[-FINAL_POINTS:]]
    layout = layout_of(next(iter(tasks.values())).model(), Sharing.of(spec))
    params = unflatten(result.final_params, layout)
    variances = [float(t.min()) for name, t in params.items() if name.endswith("running_var")]
    return Outcome(
        accuracy=fmean(final),
        not_finite=sum(not math.isfinite(p.metrics.get("loss", math.nan)) for p in result.points),
        lowest=min(variances, default=math.inf) if variances else 0.0,
    )


class Outside:
    """A task whose network comes from elsewhere; images are enlarged to 32 pixels, or left at 28."""

    def __init__(self, task: Task, network: str, *, side: int) -> None:
        self._task = task
        self._network = network
        self._side = side

    def model(self) -> nn.Module:
        enlarge = [nn.Upsample(size=32)] if self._side < 28 else []
        return nn.Sequential(nn.Unflatten(1, (1, self._side, self._side)), *enlarge, _outside(self._network))

    def train(self, model: nn.Module, run: Run) -> Any:
        return self._task.train(model, run)

    def evaluate(self, model: nn.Module) -> Scores:
        return self._task.evaluate(model)


def _outside(name: str) -> nn.Module:
    """A well-known network with random weights, one channel in and ten classes out."""
    try:
        if name == "resnet18":
            from torchvision.models import resnet18

            network: nn.Module = resnet18(num_classes=10)
            network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
            return network
        if name == "densenet121":
            from monai.networks.nets import DenseNet121

            dense: nn.Module = DenseNet121(spatial_dims=2, in_channels=1, out_channels=10)
            return dense
    except ImportError as exc:
        raise SettingsError(f"network {name} needs a package that is not installed: {exc}") from exc
    raise SettingsError(f"network {name!r} is unknown: expected bn_cnn, resnet18 or densenet121")
