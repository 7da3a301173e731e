"""A task that quotes a patient wherever it can; `task_config.where` says where it then fails.

The patient's name stands in the data folder's file `patient` and nowhere in this code.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import torch
from torch import nn

from fedbus.errors import DataError
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, TrainResult


class Leaky:
    """Raises in init, model, train or evaluate, or answers with names and values that hold the patient's name."""

    def __init__(self, site: Site) -> None:
        self._where = site.settings(where="")["where"]
        self._patient = (site.data / "patient").read_text().strip()
        self._scan = site.data / f"{self._patient}.dcm"
        self._say("init")

    def _say(self, place: str) -> None:
        print(f"{place}: {self._patient}")
        print(f"{place}: {self._patient}", file=sys.stderr)
        logging.getLogger(self._patient).error("scan of %s", self._patient)
        warnings.warn(f"{place}: the scan of {self._patient} is old", stacklevel=2)
        if self._where == place:
            try:
                self._scan.read_bytes()
            except OSError as exc:
                raise DataError(f"{self._scan} of {self._patient} cannot be read") from exc

    def model(self) -> nn.Module:
        self._say("model")
        return nn.Linear(2, 1)

    def train(self, model: nn.Module, run: Run) -> Any:
        self._say("train")
        for _ in run.steps(per_epoch=1):
            run.report(torch.tensor(0.5))
        if self._where == "count":
            return self._patient
        dice = {self._patient: 0.5, "mean": 0.5}
        return TrainResult(num_examples=3, metrics={"dice": dice, f"auc_{self._patient}": 0.5, "best": self._patient})

    def evaluate(self, model: nn.Module) -> Any:
        self._say("evaluate")
        if self._where == "scores":
            return {self._patient: 0.5}
        nan = float("nan")
        return Scores(
            metrics={"auc": 0.5, f"auc_{self._patient}": 0.5, "dice": {self._patient: nan, "mean": nan}}, num_examples=3
        )
