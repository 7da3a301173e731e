"""Statistics of a site's data, as its task computes them and as they may leave: counts below the minimum are withheld.

No model is made and no task is opened: what the statistics are to show may be what keeps the task from opening.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedbus.core.protocol.statistics import (
    OTHER,
    PROBLEM_KINDS,
    Column,
    Count,
    Images,
    Labels,
    Masks,
    Plan,
    Statistics,
    checked,
    withheld,
)
from fedbus.errors import ContractError
from fedbus.training import protocol as p
from fedbus.training.device import seed_everything
from fedbus.training.names import MetricNames
from fedbus.training.registry import load_task
from fedbus.training.sayable import type_name
from fedbus.training.task import Site

_DTYPE = re.compile(r"(u?int|float|bool|complex)\d{0,3}")
_ORIENTATION = re.compile(r"[LRAPSI]{3}")
_SHAPE = re.compile(r"\d{1,6}(x\d{1,6}){0,3}")
_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,3})?")


def examine(command: p.Examine, load: Callable[[str], Any] = load_task) -> p.Examined:
    """Ask the task for statistics of the site's data. ContractError when its answer is none; DataError as it likes."""
    torch.set_num_threads(command.threads)
    task = load(command.task)
    compute: Callable[[Site, Plan], object] | None = getattr(task, "statistics", None)
    if compute is None:
        return p.Examined(statistics=None)
    seed_everything(command.seed)
    site = Site(
        name=command.site,
        data=Path(command.data),
        config=command.task_config,
        seed=command.seed,
        device=torch.device("cpu"),
    )
    returned = compute(site, command.plan)
    if not isinstance(returned, Statistics):
        said = f"statistics() returned a {type_name(type(returned))}: expected Statistics"
        raise ContractError(said, said=said)
    named = with_names_that_may_leave(returned, MetricNames(task, command.words).may_leave)
    try:
        return p.Examined(statistics=checked(withheld(named, command.plan)))
    except (ValueError, TypeError, AttributeError) as exc:
        raise ContractError(f"statistics() returned what is none: {exc}", said="statistics() returned none") from exc


def with_names_that_may_leave(statistics: Statistics, may_leave: Callable[[str], bool]) -> Statistics:
    """The same without words that come from data: those of the task's code, of fedbus and numbers stay."""
    return replace(
        statistics,
        columns=tuple(_column(column, may_leave) for column in statistics.columns if may_leave(column.name)),
        labels=_labels(statistics.labels),
        images=_images(statistics.images),
        masks=_masks(statistics.masks),
        problems=_merged(
            (kind if kind in PROBLEM_KINDS or may_leave(kind) else OTHER, count)
            for kind, count in statistics.problems.items()
        ),
    )


def _column(column: Column, may_leave: Callable[[str], bool]) -> Column:
    unit = column.unit if not column.unit or len(column.unit) <= 12 or may_leave(column.unit) else ""
    return replace(
        column,
        unit=unit,
        coded=_fitting(column.coded, _NUMBER),
        levels=_fitting(column.levels, _NUMBER),
    )


def _labels(labels: Labels | None) -> Labels | None:
    return None if labels is None else replace(labels, counts=_fitting(labels.counts, _NUMBER))


def _images(images: Images | None) -> Images | None:
    if images is None:
        return None
    return replace(
        images,
        dtypes=_fitting(images.dtypes, _DTYPE),
        orientations=_fitting(images.orientations, _ORIENTATION),
        shapes=_fitting(images.shapes, _SHAPE),
        intensity={name: spread for name, spread in images.intensity.items() if name in ("p1", "p50", "p99")},
    )


def _masks(masks: Masks | None) -> Masks | None:
    if masks is None:
        return None
    return replace(masks, regions={name: one for name, one in masks.regions.items() if _NUMBER.fullmatch(name)})


def _fitting(counts: Mapping[str, Count], pattern: re.Pattern[str]) -> dict[str, Count]:
    return _merged((key if pattern.fullmatch(key) else OTHER, count) for key, count in counts.items())


def _merged(pairs: Iterable[tuple[Any, Count]]) -> dict[str, Count]:
    found: dict[str, Count] = {}
    for key, count in pairs:
        found[key] = (found.get(key) or 0) + (count or 0)
    return found
