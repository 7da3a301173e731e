"""How often a data check finds a site with wrong labels by the model of all sites, and how often it names one in vain.

Four sites share the digits, in virtual time, under the rules of a real job. At one of them a part of all labels, in
training and test data, is exchanged for another class at random; or all of one class are called by the next one's name
in that part. The model of all four, that site among them, is then scored on the labels of each site.

    all         one model for all: what a job has at its end anyway
    others      for each site the model of the others, one training more a site: the wrong labels have no part in it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fedbus.bench.figures import Row, row
from fedbus.core.check.losses import of_losses
from fedbus.core.protocol.statistics import LEAST, ClassLoss, sealed_losses
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import SimulatedSite, Simulation, constant, make_sites
from fedbus.tasks.digits import CLASSES, Digits
from fedbus.tensors.params import load_params_, unflatten
from fedbus.tensors.sharing import Sharing, layout_of

SITES = 4
VERSIONS = 60
SHARES = (0.0, 0.1, 0.3)
MODELS = ("all", "others")
FAULTS = ("any class", "one class")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """share: of one site's labels (fault: which) that are wrong."""

    seed: int
    share: float
    fault: str
    model: str
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Whether the site was named, and whether another one was."""

    found: bool
    in_vain: bool


def rows(*, seeds: int, alpha: float, models: Sequence[str] = MODELS, say: Say = lambda text: None) -> list[Row]:
    """One row a kind of fault and a model: in how many seeds it was found, and in how many a site was named in vain."""
    found: list[Row] = []
    for model, fault, share in product(models, FAULTS, SHARES):
        if share == 0.0 and fault != FAULTS[0]:
            continue
        cases = [Case(seed=seed, share=share, fault=fault, model=model, alpha=alpha) for seed in range(seeds)]
        named = [run_case(case) for case in cases]
        what = "clean labels" if share == 0.0 else f"{share:.0%} of {fault}"
        say(f"model of {model}, {what}: found {sum(n.found for n in named)}, in vain {sum(n.in_vain for n in named)}")
        found += counted(f"{what}, model of {model}", named, planted=share > 0)
    return found


def counted(what: str, named: Sequence[Named], *, planted: bool) -> list[Row]:
    """In how many tries the site was found, where a fault was planted, and in how many one was named in vain."""
    vain = row(f"{what}: named in vain", sum(one.in_vain for one in named), f"of {len(named)}")
    return [row(f"{what}: found", sum(one.found for one in named), f"of {len(named)}"), vain] if planted else [vain]


def run_case(case: Case) -> Named:
    """Plant the fault, train, compare."""
    torch.set_num_threads(1)
    names = [f"site-{index}" for index in range(1, SITES + 1)]
    spec = _spec(case)
    sites = make_sites(spec, [constant(1.0 + 0.3 * index) for index in range(SITES)], names=names)
    rng = np.random.default_rng(case.seed + 1000)
    wrong = names[int(rng.integers(SITES))]
    if case.share:
        _exchange_labels_(next(site for site in sites if site.name == wrong), case, rng)
    whose = {site.name: [s for s in sites if case.model == "all" or s is not site] for site in sites}
    params: dict[tuple[str, ...], Tensor] = {}
    losses = {}
    for site in sites:
        trained = tuple(s.name for s in whose[site.name])
        if trained not in params:
            result = Simulation(spec, whose[site.name], seed=case.seed, evaluate_every_s=1e9).run()
            params[trained] = result.final_params
        losses[site.name] = sealed_losses(_losses(site, params[trained]), LEAST)
    named = {one.sites[0] for one in of_losses(losses)}
    return Named(found=case.share > 0 and wrong in named, in_vain=bool(named - ({wrong} if case.share else set())))


def _spec(case: Case) -> TrainingSpec:
    return TrainingSpec.parse(
        {
            "name": "label-faults",
            "task": "digits",
            "task_config": {"alpha": case.alpha, "split_seed": case.seed},
            "seed": case.seed,
            "local": {"steps": 20, "batch_size": 32, "learning_rate": 0.1, "evaluate": False},
            "strategy": "buffered",
            "stop": {"versions": VERSIONS},
        }
    )


def _exchange_labels_(site: SimulatedSite, case: Case, rng: np.random.Generator) -> None:
    """Make a share of a site's labels wrong, in place."""
    task = cast("Any", site.task)
    one = int(np.bincount(task._train[1].numpy(), minlength=CLASSES).argmax())
    for part in ("_train", "_test"):
        images, labels = getattr(task, part)
        chosen = torch.from_numpy(rng.random(len(labels)) < case.share)
        other = torch.from_numpy(rng.integers(1, CLASSES, len(labels)))
        if case.fault == "one class":
            chosen, other = chosen & (labels == one), torch.ones_like(labels)
        setattr(task, part, (images, torch.where(chosen, (labels + other) % CLASSES, labels)))


def _losses(site: SimulatedSite, params: Tensor) -> dict[str, ClassLoss]:
    task = cast("Digits", site.task)
    model = task.model()
    load_params_(model.state_dict(), unflatten(params, layout_of(model, Sharing())))
    return task.class_losses(model.eval())
