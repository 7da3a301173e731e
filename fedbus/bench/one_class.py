"""A site that labels one class only, among sites that label all: what its data do to the class it does not label.

The largest site of `data` keeps the masks of its first class and no others, the rest is left as it is:

    full labels            as it was, to compare with
    marginal loss          its dataset.json lists the one class: the others join the background in its loss
    taken for background   its dataset.json lists all classes: their voxels are trained as background
    left out               the others train without it

Every model is scored on the full labels of all sites' test studies. Virtual time; the rules, tensors and codes are the
product's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np
import torch

from fedbus.bench.figures import Row, row
from fedbus.bench.outlines import CONFIG, TRAININGS, trained
from fedbus.errors import SettingsError
from fedbus.imaging.studies import find_studies
from fedbus.tasks.segmentation import Segmentation
from fedbus.tasks.segmentation.config import read_config
from fedbus.training.task import Scores, Site

LEFT_OUT = "left out"
LISTED = {"marginal loss": 1, "taken for background": 64}
"""How many classes the dataset.json of the one site lists, at most."""
WAYS = ("full labels", *LISTED, LEFT_OUT)


def rows(
    data: Path,
    *,
    seeds: int,
    say: Callable[[str], None],
    ways: Sequence[str] = WAYS,
    trainings: int = TRAININGS,
    config: Mapping[str, Any] = CONFIG,
) -> list[Row]:
    """Return Dice of each class over all sites' test studies and over those of the one site; means over seeds.

    data: a folder per site, whose labels have all classes of `config`.
    """
    torch.set_num_threads(1)
    full = {folder.name: _opened(folder, config) for folder in sorted(data.iterdir()) if folder.is_dir()}
    if len(full) < 2:
        raise SettingsError(f"expected folders of two sites at least in {data}, found {len(full)}")
    one = max(full, key=lambda name: len(full[name].test_cases))
    made = []
    for way in ways:
        own = {name: task for name, task in full.items() if way != LEFT_OUT or name != one}
        if way in LISTED:
            own[one] = as_drawn(data / one, LISTED[way], config)
        models = [trained(own, seed=seed, trainings=trainings) for seed in range(seeds)]
        scores = [{name: task.evaluate(model) for name, task in full.items()} for model in models]
        for where, sites in (("all sites", list(full)), (one, [one])):
            for name in ("dice", *(f"dice/{name}" for name in read_config(config).names.values())):
                dice = fmean(_mean(name, [found[site] for site in sites]) for found in scores)
                made.append(row(f"{way}, {where}: {name}", dice, ""))
                say(f"{way}, {where}: {name} {dice:.3f}")
    return made


def _opened(folder: Path, config: Mapping[str, Any]) -> Segmentation:
    return Segmentation(Site(name=folder.name, data=folder, config=config, seed=0, device=torch.device("cpu")))


def as_drawn(folder: Path, listed: int, config: Mapping[str, Any]) -> Segmentation:
    """The task of a site whose masks have the first class alone, while its dataset.json lists the first `listed`."""
    import nibabel

    names = read_config(config).names
    kept = next(iter(names))
    with tempfile.TemporaryDirectory(prefix="fedbus-one-class-") as root:
        copy = Path(root) / folder.name
        shutil.copytree(folder, copy)
        for study in find_studies(copy).labelled:
            mask = cast("Any", nibabel.load(study.label))
            drawn = (np.asarray(mask.dataobj) == kept).astype(np.uint8) * kept
            nibabel.save(nibabel.Nifti1Image(drawn, mask.affine), study.label)
        labels = {"0": "background", **{str(value): names[value] for value in list(names)[:listed]}}
        (copy / "dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")
        return _opened(copy, config)


def _mean(name: str, scores: Sequence[Scores]) -> float:
    """Over the test studies of sites."""
    known = [(one.metrics[name], one.num_examples) for one in scores if name in one.metrics]
    return sum(value * count for value, count in known) / sum(count for _, count in known)
