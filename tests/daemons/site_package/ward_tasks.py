"""A task for tests of the daemons; put this folder on PYTHONPATH and it is found by its entry point."""

from __future__ import annotations

import torch
from torch import nn

from fedbus.errors import DataError
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site


class Ward:
    """A line of `width` numbers, told by the file `width` of the data folder: two folders can disagree on the model.

    Training raises DataError as long as the data folder holds a file `broken`.
    """

    def __init__(self, site: Site) -> None:
        self._data = site.data
        self._width = int((site.data / "width").read_text())

    def model(self) -> nn.Module:
        return nn.Linear(self._width, 1)

    def train(self, model: nn.Module, run: Run) -> int:
        if (self._data / "broken").exists():
            raise DataError("the scans cannot be read")
        for _ in run.steps(per_epoch=1):
            with torch.no_grad():
                for param in model.parameters():
                    param.add_(0.5)
        return 3

    def evaluate(self, model: nn.Module) -> Scores:
        return Scores(metrics={"width": float(self._width)}, num_examples=3)


class Annotated:
    """Its examples are the labels in the data folder when it is opened; there must be one."""

    metrics = ("labels",)

    def __init__(self, site: Site) -> None:
        self._labels = len(list((site.data / "labels").glob("*.nii.gz")))
        if not self._labels:
            raise DataError("no labels")

    def model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def train(self, model: nn.Module, run: Run) -> int:
        for _ in run.steps(per_epoch=1):
            with torch.no_grad():
                for param in model.parameters():
                    param.add_(0.25)
        return self._labels

    def evaluate(self, model: nn.Module) -> Scores:
        return Scores(metrics={"labels": float(self._labels)}, num_examples=self._labels)


class Network(nn.Module):
    """What public networks have beside plain weights: running statistics, a tied head, frozen params, extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 6)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(6)
        self.weight = nn.Linear(6, 6)
        self.head = nn.Linear(6, 6)
        self.head.weight = self.weight.weight
        self.calls = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.weight(self.norm(self.frozen(x)))))


class PublicNetwork:
    """Trains `Network` on random numbers, of another size at each site."""

    def __init__(self, site: Site) -> None:
        self._scale = 1.0 + sum(map(ord, site.name)) % 7

    def model(self) -> nn.Module:
        return Network()

    def _loss(self, model: nn.Module) -> torch.Tensor:
        x = self._scale * torch.randn(16, 6)
        return (model(x) - x.sign()).square().mean()

    def train(self, model: nn.Module, run: Run) -> int:
        learnt = [param for param in model.parameters() if param.requires_grad]
        for _ in run.steps(per_epoch=1):
            for param in learnt:
                param.grad = None
            self._loss(model).backward()
            with torch.no_grad():
                for param in learnt:
                    param.sub_(run.learning_rate * param.grad)
        return 16

    def evaluate(self, model: nn.Module) -> Scores:
        return Scores(metrics={"loss": float(self._loss(model))}, num_examples=16)
