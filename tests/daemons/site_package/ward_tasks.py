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
