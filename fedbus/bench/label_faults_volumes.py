"""How often a data check finds a site whose outlines have two classes exchanged, by the model of all sites.

The studies of one folder are dealt at random to four sites, which train in virtual time under the rules of a real job.
At one of them classes 1 and 2 are exchanged in a share of all studies, those it trains on and those it tests on. The
last model is then scored on the masks of each site. The same without a fault, and for the clean labels also with the
sites that the studies come from, told apart by the scale of their intensities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbus.bench.data_faults import scale_of
from fedbus.bench.figures import Row, row
from fedbus.bench.label_faults import SHARES, Named, counted
from fedbus.bench.outlines import CONFIG, TRAININGS, trained
from fedbus.core.check.losses import of_losses
from fedbus.core.protocol.statistics import LEAST, sealed_losses
from fedbus.imaging.studies import find_studies
from fedbus.imaging.volumes import read_volume
from fedbus.tasks.segmentation import Segmentation
from fedbus.tasks.segmentation.cases import Case, Prepared, prepare_site, split
from fedbus.tasks.segmentation.config import SegmentationConfig, read_config

SITES = 4
EXCHANGED = np.array([0, 2, 1], np.uint8)


def rows(
    folder: Path,
    *,
    seeds: int,
    say: Callable[[str], None],
    trainings: int = TRAININGS,
    given: Mapping[str, Any] = CONFIG,
    shares: Sequence[float] = SHARES,
    by_scale: bool = True,
) -> list[Row]:
    """In how many seeds the site was found, and in how many one was named in vain; folder: a site's, with two classes.

    by_scale: also with the studies as they are, a site for each scale of their intensities.
    """
    torch.set_num_threads(1)
    config = read_config(given)
    prepared = prepare_site(folder, config)
    cases = {case.id: case for case in (*prepared.train, *prepared.test)}
    made: list[Row] = []
    for share in shares:
        what = f"volumes, classes exchanged in {share:.0%} of the studies" if share else "volumes, clean labels"
        found = []
        for seed in range(seeds):
            sites, wrong = _dealt(list(cases.values()), share=share, seed=seed)
            accused = _accused(sites, config, seed=seed, trainings=trainings)
            say(f"{what}, seed {seed}: at {wrong or 'no site'}, named {', '.join(sorted(accused)) or 'nobody'}")
            found.append(Named(found=wrong in accused, in_vain=bool(accused - {wrong})))
        made += counted(what, found, planted=share > 0)
    if by_scale:
        sites = _scales(folder, cases)
        vain = [bool(_accused(sites, config, seed=seed, trainings=trainings)) for seed in range(seeds)]
        made.append(row("volumes by scale, clean labels: named in vain", sum(vain), f"of {seeds}"))
    return made


def _dealt(cases: Sequence[Case], *, share: float, seed: int) -> tuple[dict[str, Sequence[Case]], str]:
    """Four sites with studies at random, and the name of the one with exchanged classes; "": none."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(cases))
    sites = {f"site-{at + 1}": [cases[place] for place in order[at::SITES]] for at in range(SITES)}
    wrong = f"site-{1 + int(rng.integers(SITES))}"
    if not share:
        return {**sites}, ""
    return {**sites, wrong: exchanged(sites[wrong], round(share * len(sites[wrong])), rng)}, wrong


def _scales(folder: Path, cases: Mapping[str, Case]) -> dict[str, Sequence[Case]]:
    sites: dict[str, list[Case]] = {}
    for study in find_studies(folder).labelled:
        if study.id in cases:
            sites.setdefault(scale_of(read_volume(study.image)), []).append(cases[study.id])
    return {**sites}


def _accused(
    sites: Mapping[str, Sequence[Case]], config: SegmentationConfig, *, seed: int, trainings: int
) -> frozenset[str]:
    """Train one model at all sites, and compare its losses on the masks of each."""
    tasks = {}
    for name, own in sites.items():
        train, test = split(own, config.validation)
        tasks[name] = Segmentation.of(config, Prepared(train=train, test=test, labelled=(1, 2)), torch.device("cpu"))
    model = trained(tasks, seed=seed, trainings=trainings)
    found = of_losses({name: sealed_losses(task.class_losses(model), LEAST) for name, task in tasks.items()})
    return frozenset(one.sites[0] for one in found)


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
