"""A task with volumes whose every voxel is a secret: what of it is found anywhere else has leaked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from fedbus.training.run import Run
from fedbus.training.shown import ShownCase
from fedbus.training.task import Scores, Site


class Shown:
    """Five cases with an organ each; the more of the model's one param, the more of it the model finds."""

    def __init__(self, site: Site) -> None:
        numbers = np.random.default_rng(1)
        self._images = [numbers.integers(0, 1000, (12, 14, 10)).astype(np.float32) for _ in range(5)]

    def model(self) -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def train(self, model: nn.Module, run: Run) -> int:
        for _ in run.steps(per_epoch=1):
            with torch.no_grad():
                next(model.parameters()).fill_(0.5)
        return 5

    def evaluate(self, model: nn.Module) -> Scores:
        return Scores(metrics={"loss": 0.5}, num_examples=5)

    def cases(self, model: nn.Module) -> Iterator[ShownCase]:
        for number, image in enumerate(self._images):
            label, found = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.uint8)
            label[4:8, 4:8, 3:7] = 1
            found[4 + number // 2 : 8, 4:8, 3:7] = 1
            empty = number == 4
            yield ShownCase(
                id=f"patient-{number}",
                image=image,
                label=label * (not empty),
                prediction=found,
                spacing=(1.0, 1.0, 2.0),
                classes={1: "organ"},
                scores={"organ": float("nan") if empty else 1.0 - 0.2 * (number // 2) - 0.01 * number},
            )
