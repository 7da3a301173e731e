"""The sites of a run in virtual time: their tasks with their data, how fast they are, when they are there.

What lives here: making them from a job spec. What may not: the order of events (see `loop`).

The built-in tasks need no preparation: `digits` and `fashion_mnist` share one data set among the sites, and
`heart_disease` has its four hospitals. Any other task gets the folders of `data`, one per site and named like it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import SettingsError
from fedbus.simulation.delays import Delay
from fedbus.simulation.presence import Presence
from fedbus.tasks.heart_disease_data import HOSPITALS, write_site_data
from fedbus.training.device import seed_everything
from fedbus.training.registry import load_task
from fedbus.training.task import Site, Task

SHARED = frozenset({"digits", "fashion_mnist"})
"""Tasks that share one data set among the sites that `task_config.sites` lists."""
NEEDS_NOTHING = frozenset({"synthetic"})
MOST_SITES = 10_000


ALWAYS = Presence()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSite:
    """One site. `task` is its own object, with its own data."""

    name: str
    task: Task
    delay: Delay
    presence: Presence = ALWAYS


def site_names(spec: TrainingSpec, number: int | None, data: Path | None = None) -> list[str]:
    """Return the names of the sites: those of the data folders, of the job, of the hospitals, or `number` new ones.

    Raises SettingsError when these do not fit together.
    """
    if data is not None:
        found = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
        where = f"folders in {data}"
    elif spec.sites is not None:
        found, where = list(spec.sites), "sites in the job"
    elif spec.task == "heart_disease":
        found, where = list(HOSPITALS), "hospitals"
    elif spec.task not in SHARED | NEEDS_NOTHING:
        raise _needs_data(spec)
    else:
        if number is None or not 1 <= number <= MOST_SITES:
            raise SettingsError(f"--sites: expected 1 to {MOST_SITES} sites, got {number}")
        width = max(2, len(str(number)))
        return [f"site-{index:0{width}}" for index in range(1, number + 1)]
    if (number is not None and number > len(found)) or not found:
        raise SettingsError(f"--sites {number}: there are only {len(found)} {where}")
    return found[:number]


def make_tasks(spec: TrainingSpec, names: Sequence[str], data: Path | None = None) -> dict[str, Task]:
    """Load each site's task with its data, as its trainer process would. Raises TaskError, DataError, SettingsError."""
    config = spec.to_dict()["task_config"]
    if data is None and spec.task in SHARED:
        config = {**config, "sites": list(names)}
    if data is not None:
        return {name: _task(spec, name, config, data / name) for name in names}
    if spec.task not in SHARED | NEEDS_NOTHING | {"heart_disease"}:
        raise _needs_data(spec)
    with tempfile.TemporaryDirectory(prefix="fedbus-simulate-") as folder:
        root = Path(folder)
        if spec.task == "heart_disease":
            for name in names:
                write_site_data(root / name, name)
        return {name: _task(spec, name, config, root / name) for name in names}


def make_sites(
    spec: TrainingSpec,
    delays: Sequence[Delay],
    *,
    names: Sequence[str],
    data: Path | None = None,
    presence: Mapping[str, Presence] | None = None,
) -> list[SimulatedSite]:
    """Return one site per name, in order, each with its delay."""
    tasks, there = make_tasks(spec, names, data), presence or {}
    return [
        SimulatedSite(name=name, task=tasks[name], delay=delay, presence=there.get(name, ALWAYS))
        for name, delay in zip(names, delays, strict=True)
    ]


def _needs_data(spec: TrainingSpec) -> SettingsError:
    return SettingsError(
        f"task {spec.task!r} needs data: give --data DIR, a folder with one folder per site, named like the site "
        "and with what its daemon would get as --data"
    )


def _task(spec: TrainingSpec, name: str, config: Mapping[str, object], folder: Path) -> Task:
    seed_everything(spec.seed)
    site = Site(name=name, data=folder, config=config, seed=spec.seed, device=torch.device("cpu"))
    task: Task = load_task(spec.task)(site)
    return task
