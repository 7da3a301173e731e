"""Scores a model that a site has handed back on studies that nobody annotates meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbus.imaging.studies import Study
from fedbus.tasks.segmentation.cases import Case, prepare
from fedbus.tasks.segmentation.config import read_config
from fedbus.tasks.segmentation.networks import make_network
from fedbus.tasks.segmentation.windows import logits_of


class Judge:
    """`config` is the job's task_config; `studies` with labels, by site."""

    def __init__(self, config: Mapping[str, Any], studies: Mapping[str, Sequence[Study]]) -> None:
        torch.set_num_threads(1)
        self._config = read_config(config)
        self._cases = [prepare(study, self._config) for found in studies.values() for study in found]
        self._model = make_network(self._config).eval()

    def dice(self, model: Path) -> float:
        """Mean Dice of a state dict over studies and classes."""
        self._model.load_state_dict(torch.load(model, map_location="cpu", weights_only=True))
        with torch.no_grad():
            return float(np.mean([value for case in self._cases for value in self._of(case)]))

    def _of(self, case: Case) -> Iterator[float]:
        found = logits_of(self._model, case, self._config, torch.device("cpu"))[0].argmax(dim=0)
        label = torch.tensor(case.label)
        for channel in range(1, 1 + len(self._config.classes)):
            if (label == channel).any():
                yield _dice(found == channel, label == channel)


def _dice(found: Tensor, true: Tensor) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))
