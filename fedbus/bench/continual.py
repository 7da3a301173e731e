"""New data on old weights: with the new data alone, together with the old ones, or all from scratch.

Each site's training data are old but for a tenth, which comes later: like the old ones, or of one kind only (digits: of
two classes). A first job trains on the old data; then, from its last version on, `new only` and `old and new` train as
long as it did at a tenth of the learning rate and at the same; `all from scratch` trains as long as both together.
Measured on the same test data, of no site's training. Virtual time; the rules, tensors and codes are the product's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedbus.bench.figures import Row, row
from fedbus.bench.outlines import CONFIG, LOCAL
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import SettingsError
from fedbus.simulation import SimulatedSite, Simulation, delays_of
from fedbus.tasks.digits import Digits
from fedbus.tasks.segmentation.task import Segmentation
from fedbus.training.device import seed_everything
from fedbus.training.task import Site, Task

NEW_SHARE = 0.1
NEW_CLASSES = (3, 8)
GENTLE = 0.1
"""Times the learning rate of the first job, where a continued one takes smaller steps."""


class Parted(Task, Protocol):
    """A task whose site can be told which of its training data are there."""

    def new_ones(self, kind: str, rng: np.random.Generator) -> list[int]:
        """The places of the data that come later."""

    def only(self, places: Sequence[int] | None) -> None:
        """Train on these; None: on all."""

    @property
    def count(self) -> int: ...


class DigitsInParts(Digits):
    """See `Parted`."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._whole = self._train

    @property
    def count(self) -> int:
        return len(self._whole[1])

    def new_ones(self, kind: str, rng: np.random.Generator) -> list[int]:
        labels = self._whole[1].numpy()
        among = np.flatnonzero(np.isin(labels, NEW_CLASSES)) if kind == "two classes" else np.arange(len(labels))
        return list(map(int, rng.permutation(among)[: max(1, round(NEW_SHARE * len(labels)))]))

    def only(self, places: Sequence[int] | None) -> None:
        at = torch.arange(self.count) if places is None else torch.tensor(places)
        self._train = self._whole[0][at], self._whole[1][at]


class SegmentationInParts(Segmentation):
    """See `Parted`; studies that come later are like the others."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._whole = self._site.train

    @property
    def count(self) -> int:
        return len(self._whole)

    def new_ones(self, kind: str, rng: np.random.Generator) -> list[int]:
        return list(map(int, rng.permutation(self.count)[: max(1, round(NEW_SHARE * self.count))]))

    def only(self, places: Sequence[int] | None) -> None:
        chosen = range(self.count) if places is None else places
        self._site = replace(self._site, train=tuple(self._whole[at] for at in chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is trained, and for how long: `versions` of the first job. metric: where more is better."""

    spec: Mapping[str, Any]
    metric: str
    kinds: tuple[str, ...]
    versions: int


DIGITS = Setting(
    spec={
        "task": "digits",
        "task_config": {"alpha": 1.0, "shared_test": True},
        "local": {"steps": 10, "batch_size": 16, "learning_rate": 0.1, "evaluate": False},
    },
    metric="accuracy",
    kinds=("like the old ones", "two classes"),
    versions=60,
)
HIPPOCAMPUS = Setting(
    spec={"task": "segmentation", "task_config": CONFIG, "local": LOCAL},
    metric="dice",
    kinds=("like the old ones",),
    versions=12,
)


def rows(setting: Setting, *, data: Path | None, seeds: int, say: Callable[[str], None]) -> list[Row]:
    """Return the metric of every way, medians over seeds."""
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for kind in setting.kinds:
        for seed in range(seeds):
            for way, value in _run(setting, kind, data=data, seed=seed).items():
                label = f"new data {kind}: {way}"
                found.setdefault(label, []).append(value)
                say(f"{label}, seed {seed}: {setting.metric} {value:.4f}")
    return [row(f"{label}: {setting.metric}", median(values), "") for label, values in found.items()]


def _run(setting: Setting, kind: str, *, data: Path | None, seed: int) -> dict[str, float]:
    tasks = _tasks(setting, data, seed)
    rng = np.random.default_rng(seed)
    new = {name: task.new_ones(kind, rng) for name, task in tasks.items()}
    old = {name: sorted(set(range(task.count)) - set(new[name])) for name, task in tasks.items()}

    def train(places: Mapping[str, Sequence[int]] | None, versions: int, lr: float, start: Tensor | None) -> Any:
        for name, task in tasks.items():
            task.only(None if places is None else places[name])
        local = {**setting.spec["local"], "learning_rate": setting.spec["local"]["learning_rate"] * lr}
        keys = {**setting.spec, "local": local, "name": "continual", "stop": {"versions": versions}}
        delays = delays_of("geometric:3", len(tasks), seed=seed)
        sites = [
            SimulatedSite(name=name, task=task, delay=delay)
            for (name, task), delay in zip(tasks.items(), delays, strict=True)
        ]
        # the curve is not looked at but for its end
        return Simulation(TrainingSpec.parse(keys), sites, seed=seed, evaluate_every_s=1e9, initial=start).run()

    versions = setting.versions
    first = train(old, versions, 1.0, None)
    start = first.final_params
    runs = {
        "old data only": first,
        "new only, on old weights": train(new, versions, 1.0, start),
        "new only, on old weights, small steps": train(new, versions, GENTLE, start),
        "old and new, on old weights": train(None, versions, 1.0, start),
        "old and new, on old weights, small steps": train(None, versions, GENTLE, start),
        "all from scratch": train(None, 2 * versions, 1.0, None),
    }
    return {way: float(result.points[-1].metrics[setting.metric]) for way, result in runs.items()}


def _tasks(setting: Setting, data: Path | None, seed: int) -> dict[str, Parted]:
    made: dict[str, Parted] = {}
    config = dict(setting.spec["task_config"])
    if data is not None:
        folders = sorted(path for path in data.iterdir() if path.is_dir())
        if not folders:
            raise SettingsError(f"expected a folder for each site in {data}, found none")
        for folder in folders:
            made[folder.name] = SegmentationInParts(_site(folder.name, folder, config, seed))
        return made
    names = [f"site-{number}" for number in range(1, 5)]
    with tempfile.TemporaryDirectory() as empty:
        for name in names:
            shared = config | {"sites": names, "split_seed": seed}
            made[name] = DigitsInParts(_site(name, Path(empty), shared, seed))
    return made


def _site(name: str, data: Path, config: Mapping[str, Any], seed: int) -> Site:
    seed_everything(seed)
    return Site(name=name, data=data, config=config, seed=seed, device=torch.device("cpu"))
