"""A task whose numbers can be followed by hand: each step adds 1 to the single parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import Presence, SimulatedSite, constant
from fedbus.training.run import Run
from fedbus.training.task import Scores

torch.set_num_threads(1)


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))


class Counting:
    """Adds `step` to the parameter at every step; its only metric is the parameter."""

    def __init__(self, examples: int = 1, step: float = 1.0) -> None:
        self.examples = examples
        self.step = step

    def model(self) -> nn.Module:
        return One()

    def train(self, model: nn.Module, run: Run) -> int:
        for _ in run.steps(per_epoch=1):
            with torch.no_grad():
                next(model.parameters()).add_(self.step)
        return self.examples

    def evaluate(self, model: nn.Module) -> Scores:
        return Scores(metrics={"x": float(next(model.parameters()))}, num_examples=self.examples)


MakeSpec = Callable[..., TrainingSpec]
MakeSite = Callable[..., SimulatedSite]


@pytest.fixture
def make_spec() -> MakeSpec:
    """A job of one step and plain arithmetic: exact codes, weight 1, server step 1; keys can be set."""

    def make(**keys: Any) -> TrainingSpec:
        plain = {
            "name": "by-hand",
            "task": "synthetic",
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0},
            "strategy": {"kind": "buffered", "buffer": 2},
            "staleness": "constant",
            "clip_to_own_median": None,
            "server_optimizer": {"kind": "plain", "lr": 1.0},
            "codec": {"up": "fp32", "down": "fp32"},
            "stop": {"versions": 1000},
        }
        return TrainingSpec.parse(plain | keys)

    return make


@pytest.fixture
def make_site() -> MakeSite:
    def make(name: str, delay_s: float = 1.0, **keys: Any) -> SimulatedSite:
        presence = keys.pop("presence", Presence())
        return SimulatedSite(name=name, task=Counting(**keys), delay=constant(delay_s), presence=presence)

    return make
