"""The contract between fedbus and a task: what a site runs for a job.

A task is a class, found by its name in the entry point group `fedbus.tasks`. It runs in the trainer process, one object
per job. It says what the model is, how it is trained on this site's data, and how it is scored; fedbus does the rest:

    model()      made once per job, under the job's seed; its floating-point params and buffers are what travels
    train()      gets the model loaded with the newest params; fedbus sends the difference that training made
    evaluate()   gets the model loaded with the version to score, without gradients
    cases()      may be there: yields a `ShownCase` for each test case, for people at the site; see `fedbus site report`

A task that also has these two, static and from the job's task_config alone, can be exported where there are no data
(`fedbus export`); see `Exportable`:

    network(config)         the network that model() makes
    example_input(config)   what the network takes: a batch of two examples

It may also have a class method `statistics(site, plan)`, which returns `Statistics` of the site's data with exact
counts (see `core.protocol.statistics`): for data checks, which ask before a task is opened. fedbus withholds what must
not leave; a task without it cannot say. And a method `class_losses(model)`, the losses of the site's labelled examples
by class (see `statistics.arrays.class_losses_of`): what a data check compares when the training has ended.

`train` and `evaluate` may be called any number of times and must keep nothing that depends on the params between calls:
the next base differs, so optimizer state is made new in each `train`.

    a count      everything that Python takes for an index: int, numpy integers, a tensor with one integer
    a metric     everything that float() takes; a list or mapping of numbers becomes name/0, name/1 or name/key (at most
                 64 in all). What is no number or not finite is left out and noted in the site's log
    its name     leaves the site when its words stand in the task's own code or in the job's spec, or when the class
                 declares it: metrics = ("mse",); see `names`
    a case       with `Scores.of_cases` the site keeps a value per test case, which never leaves, and says of a metric
                 how sure it is: intervals, and paired differences between models; see `cases` and `intervals`
    a wrong answer, such as a tuple from `train` or a dict from `evaluate`, is refused at once and not tried again: a
                 tuple has no names, and every training library orders it otherwise

What a task raises, prints or logs stays in the site's log; others are told an error's type and where it was raised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedbus.errors import ContractError
from fedbus.training.cases import Resample, as_values, mean_of_cases
from fedbus.training.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a task runs. `config` is the job's `task_config`, `seed` the job's seed, `data` the site's own folder."""

    name: str
    data: Path
    config: Mapping[str, Any]
    seed: int
    device: torch.device

    def settings(self, **defaults: Any) -> dict[str, Any]:
        """See `settings_of`: what the job's `task_config` sets."""
        return settings_of(self.config, **defaults)


def settings_of(config: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return `defaults` with what a `task_config` sets instead.

    Raises ContractError for a key that has no default and for a value of another type than its default (an integer may
    stand for a float, which is finite; a default of None takes anything).
    """
    if unknown := sorted(config.keys() - defaults.keys()):
        text = f"expected task_config keys of {', '.join(defaults)}; got {', '.join(unknown)}"
        raise ContractError.of_job(text)
    settings = {}
    for key, default in defaults.items():
        value = config.get(key, default)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            text = f"expected task_config.{key} to be of type {type(default).__name__}, got {value!r}"
            raise ContractError.of_job(text)
        if isinstance(value, float) and not math.isfinite(value):  # NaN passes every comparison with a bound
            raise ContractError.of_job(f"expected task_config.{key} to be finite, got {value!r}")
        settings[key] = value
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How many examples the site trains on (its weight in the global model), and metrics of the training if any."""

    num_examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Metrics of a model on the site's test data, and the number of examples behind them.

    A metric that cannot be computed (AUC of a single class) is left out: sites average what is there. One that is not
    finite is left out too, and its name is told. `cases` and `resample` say how sure the metrics are, and stay at the
    site: see `cases`; without them there are no intervals.
    """

    metrics: Mapping[str, float]
    num_examples: int
    cases: Mapping[str, Any] = field(default_factory=dict)
    resample: Resample | None = None

    @classmethod
    def of_cases(
        cls, cases: Mapping[str, Any], *, metrics: Mapping[str, float] | None = None, resample: Resample | None = None
    ) -> Scores:
        """Scores of values per test case, [n] of each metric: their means, and `metrics` beside them.

        A list, an array or a tensor each; NaN: this case has no value. Raises ContractError unless all have n values.
        """
        values = {name: as_values(name, raw) for name, raw in cases.items()}
        if len(counts := {len(found) for found in values.values()}) != 1:
            text = f"expected a value per test case of each metric, as many of all; got {sorted(counts) or 'none'}"
            raise ContractError.of_job(text)
        means = {name: mean_of_cases(name, found) for name, found in values.items()}
        return cls(
            metrics={name: mean for name, mean in means.items() if mean is not None} | dict(metrics or {}),
            num_examples=counts.pop(),
            cases=values,
            resample=resample,
        )


class Task(Protocol):
    """What a task must have; inheriting from it is not needed."""

    def __init__(self, site: Site) -> None:
        """Load the site's data; DataError when they are missing, empty or malformed."""

    def model(self) -> nn.Module:
        """Make the model with fresh params, on any device. All randomness comes from torch's seeded generator."""

    def train(self, model: nn.Module, run: Run) -> TrainResult | int:
        """Train `model` in place until `run.steps()` or `run.batches()` ends; an int is the number of examples."""

    def evaluate(self, model: nn.Module) -> Scores:
        """Score `model` on the site's own test data."""


class Exportable(Protocol):
    """What a task may have beside, so that its model can be made and tried without any data; both are static."""

    @staticmethod
    def network(config: Mapping[str, Any]) -> nn.Module:
        """Make the network of `Task.model` from a job's task_config. Raises ContractError."""

    @staticmethod
    def example_input(config: Mapping[str, Any]) -> Tensor:
        """Make what the network takes: two examples, [2, ...], plausible numbers and nobody's data."""
