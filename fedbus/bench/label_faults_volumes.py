"""How often a data check finds a site whose outlines have two classes exchanged, by the model of all sites.

The studies of one folder are dealt at random to four sites, which train in virtual time under the rules of a real job.
At one of them classes 1 and 2 are exchanged in a share of all studies, those it trains on and those it tests on. The
last model is then scored on the masks of each site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbus.bench.figures import Row, row
from fedbus.bench.label_faults import SHARES, Named
from fedbus.core.check.losses import of_losses
from fedbus.core.protocol.statistics import LEAST, ClassLoss, sealed_losses
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import SimulatedSite, Simulation, constant
from fedbus.tasks.segmentation import Segmentation
from fedbus.tasks.segmentation.cases import Case, Prepared, prepare_site, split
from fedbus.tasks.segmentation.config import SegmentationConfig, read_config
from fedbus.tensors.params import load_params_, unflatten
from fedbus.tensors.sharing import Sharing, layout_of

SITES = 4
EXCHANGED = np.array([0, 2, 1], np.uint8)
CONFIG: Mapping[str, Any] = {
    "classes": ["anterior", "posterior"],
    "patch_size": [32, 48, 32],
    "augment": {"flip": {"axes": ["x"]}},
}
LOCAL: Mapping[str, Any] = {"steps": 10, "batch_size": 4, "learning_rate": 0.005, "evaluate": False}
TRAININGS = 6
"""Of each site."""


def rows(
    folder: Path,
    *,
    seeds: int,
    say: Callable[[str], None],
    trainings: int = TRAININGS,
    given: Mapping[str, Any] = CONFIG,
    shares: Sequence[float] = SHARES,
) -> list[Row]:
    """folder: a site's, with studies of two classes. One row a share: found, and named in vain, in how many seeds."""
    torch.set_num_threads(1)
    config = read_config(given)
    prepared = prepare_site(folder, config)
    cases = [*prepared.train, *prepared.test]
    named: dict[float, list[Named]] = {share: [] for share in shares}
    for seed in range(seeds):
        for share in shares:
            named[share].append(_named(cases, config, share=share, seed=seed, trainings=trainings, say=say))
    made = []
    for share, found in named.items():
        what = f"volumes, classes exchanged in {share:.0%} of the studies" if share else "volumes, clean labels"
        if share:
            made.append(row(f"{what}: found", sum(one.found for one in found), f"of {seeds}"))
        made.append(row(f"{what}: named in vain", sum(one.in_vain for one in found), f"of {seeds}"))
    return made


def _named(
    cases: Sequence[Case],
    config: SegmentationConfig,
    *,
    share: float,
    seed: int,
    trainings: int,
    say: Callable[[str], None],
) -> Named:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(cases))
    wrong = f"site-{1 + int(rng.integers(SITES))}"
    tasks = {}
    for at in range(SITES):
        name, own = f"site-{at + 1}", [cases[place] for place in order[at::SITES]]
        if name == wrong:
            own = exchanged(own, round(share * len(own)), rng)
        train, test = split(own, config.validation)
        tasks[name] = Segmentation.of(config, Prepared(train=train, test=test, labelled=(1, 2)), torch.device("cpu"))
    losses = {name: sealed_losses(own, LEAST) for name, own in _losses(tasks, seed=seed, trainings=trainings).items()}
    accused = {one.sites[0] for one in of_losses(losses)}
    say(f"{share:.0%} at {wrong}, seed {seed}: named {', '.join(sorted(accused)) or 'nobody'}; {_said(losses)}")
    right = {wrong} if share else set()
    return Named(found=bool(accused & right), in_vain=bool(accused - right))


def exchanged(cases: Sequence[Case], count: int, rng: np.random.Generator) -> list[Case]:
    """The cases, in so many of them classes 1 and 2 exchanged."""
    chosen = set(rng.permutation(len(cases))[:count].tolist())
    return [
        replace(
            case,
            label=EXCHANGED[case.label],
            middles={int(EXCHANGED[channel]): middles for channel, middles in case.middles.items()},
        )
        if at in chosen
        else case
        for at, case in enumerate(cases)
    ]


def _losses(tasks: Mapping[str, Segmentation], *, seed: int, trainings: int) -> dict[str, dict[str, ClassLoss]]:
    """Train one model at all sites; its losses on the masks of each."""
    spec = TrainingSpec.parse(
        {
            "name": "label-faults",
            "task": "segmentation",
            "local": dict(LOCAL),
            "stop": {"updates": trainings * len(tasks)},
        }
    )
    sites = [
        SimulatedSite(name=name, task=task, delay=constant(1.0 + 0.1 * at))
        for at, (name, task) in enumerate(tasks.items())
    ]
    result = Simulation(spec, sites, seed=seed, evaluate_every_s=1e9, scorers=()).run()
    model = next(iter(tasks.values())).model()
    load_params_(model.state_dict(), unflatten(result.final_params, layout_of(model, Sharing())))
    return {name: task.class_losses(model.eval()) for name, task in tasks.items()}


def _said(losses: Mapping[str, Mapping[str, ClassLoss]]) -> str:
    return "; ".join(
        f"{site} " + " ".join(f"{word} {one.mean or 0.0:.3f}" for word, one in own.items())
        for site, own in losses.items()
    )
