"""What runs in a trainer: a program that is given params by name, and gives params, examples and metrics.

A `Task` with its torch module is one (`TaskProgram`). Others need no module and no class of a model: a program may hold
arrays, or talk to a process with an interpreter of its own, as long as it knows its tensors by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from fedbus.core.protocol.statistics import ClassLoss
from fedbus.errors import TaskError
from fedbus.tensors.params import load_params_
from fedbus.tensors.sharing import Inventory, freeze_, inventory_of
from fedbus.training import protocol as p
from fedbus.training.device import seed_everything
from fedbus.training.names import MetricNames
from fedbus.training.ranks.gradients import together
from fedbus.training.registry import load_task
from fedbus.training.run import Run
from fedbus.training.shown import ShownCase
from fedbus.training.task import Scores, Site, Task, TrainResult


class Program(Protocol):
    """One job's program at one site. Names, shapes, dtypes and kinds of its tensors never change."""

    def inventory(self) -> Inventory:
        """Return the tensors that it holds, all of them, and what each is."""

    def freeze(self, names: frozenset[str]) -> None:
        """Train these no more; what a training makes of them is dropped in any case."""

    def fresh(self) -> Mapping[str, object]:
        """Return tensors as it makes them under the job's seed, whatever it was trained on since."""

    def load(self, params: Mapping[str, Tensor]) -> None:
        """Take on copies of these tensors and leave the others alone; LayoutError, and no change, if one differs."""

    def params(self) -> Mapping[str, object]:
        """Return what it holds now, by name; only read, and not after the next call."""

    def train(self, run: Run) -> TrainResult | int:
        """Train until the budget of `run` is spent; an int is the number of examples."""

    def evaluate(self) -> Scores:
        """Score what it holds on the site's own test data."""

    def class_losses(self) -> Mapping[str, ClassLoss]:
        """Losses of what it holds on the site's labelled examples by class, exact; empty where there are none."""

    def may_leave(self, metric: str) -> bool:
        """Say whether a metric's name may leave the site; see `names`."""


ProgramLoader = Callable[[p.Open, torch.device], Program]


class TaskProgram:
    """A task, and the model that it made.

    seed: the job's. words: texts of the job, which may stand in names of metrics. model: what to train and score, where
    it is not the task's own; a simulation has one for all sites.
    """

    def __init__(
        self,
        task: Task,
        *,
        seed: int,
        device: torch.device | None = None,
        words: Iterable[str] = (),
        model: nn.Module | None = None,
    ) -> None:
        self._task = task
        self._seed = seed
        self._device = device or torch.device("cpu")
        self._names = MetricNames(type(task), words)
        self._model = self._made() if model is None else model

    def inventory(self) -> Inventory:
        return inventory_of(self._model)

    def freeze(self, names: frozenset[str]) -> None:
        freeze_(self._model, names)

    def fresh(self) -> Mapping[str, object]:
        return self._made().state_dict()

    def load(self, params: Mapping[str, Tensor]) -> None:
        load_params_(self._model.state_dict(), params)

    def params(self) -> Mapping[str, object]:
        return self._model.state_dict()

    def train(self, run: Run) -> TrainResult | int:
        with together(self._model, run.team):
            run.anchor_to(self._model)
            self._model.train()
            return self._task.train(self._model, run)

    def evaluate(self) -> Scores:
        self._model.eval()
        with torch.no_grad():
            return self._task.evaluate(self._model)

    def cases(self) -> Iterator[ShownCase]:
        """Show the site's test cases to people at the site; TaskError when the task has no `cases`."""
        show = getattr(self._task, "cases", None)
        if not callable(show):
            raise TaskError("this task shows no cases: a report at the site needs a task that has cases(model)")
        self._model.eval()
        with torch.no_grad():
            yield from show(self._model)

    def class_losses(self) -> Mapping[str, ClassLoss]:
        compute: Callable[[nn.Module], Mapping[str, ClassLoss]] | None = getattr(self._task, "class_losses", None)
        if compute is None:
            return {}
        self._model.eval()
        with torch.no_grad():
            return {f"{int(label)}": loss for label, loss in compute(self._model).items()}

    def may_leave(self, metric: str) -> bool:
        return self._names.may_leave(metric)

    def _made(self) -> nn.Module:
        seed_everything(self._seed)
        return self._task.model().to(self._device)


def load_program(opening: p.Open, device: torch.device) -> TaskProgram:
    """Load the task that a job names, and the site's data; TaskError or DataError say why that fails."""
    site = Site(
        name=opening.site, data=Path(opening.data), config=opening.task_config, seed=opening.seed, device=device
    )
    seed_everything(opening.seed)
    task: Task = load_task(opening.task)(site)
    return TaskProgram(task, seed=opening.seed, device=device, words=opening.words)
