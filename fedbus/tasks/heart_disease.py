"""Task `heart_disease`: does this patient have coronary disease? Logistic regression on 15 findings of four hospitals.

    task_config   {hidden: 0}   0 is logistic regression (FLamby's baseline for these hospitals, arXiv 2210.04620);
                                n > 0 puts one hidden layer of n ReLU units before it
    data          heart_disease.csv with the site's own patients, see `heart_disease_data`
    metrics       auc (left out when the test patients are all of one class), accuracy, loss

No layer keeps running statistics, so every number of the model is a trained param and may be averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.core.protocol.statistics import ClassLoss, Plan, Statistics
from fedbus.errors import ContractError
from fedbus.tasks.heart_disease_data import (
    CODES,
    FILE_NAME,
    LABEL,
    NUM_FEATURES,
    PLAUSIBLE,
    UNUSED,
    Patients,
    main,
    read_patients,
    split,
    write_site_data,
)
from fedbus.tasks.metrics import auc, auc_again
from fedbus.tasks.statistics.arrays import class_losses_of
from fedbus.tasks.statistics.tables import table_statistics
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, settings_of

__all__ = ["HeartDisease", "fit", "make_model", "score", "write_site_data"]

WEIGHT_DECAY = 1e-3
MOST_HIDDEN = 1 << 16


class HeartDisease:
    """Finds coronary disease in the patients of one hospital."""

    def __init__(self, site: Site) -> None:
        train, test = split(read_patients(site.data / FILE_NAME))
        self._train = tensors(train, site.device)
        self._test = tensors(test, site.device)
        self._config = site.config
        _hidden(site.config)

    @classmethod
    def statistics(cls, site: Site, plan: Plan) -> Statistics:
        return table_statistics(site.data / FILE_NAME, (*PLAUSIBLE, *CODES), label=LABEL, plan=plan, unused=UNUSED)

    def model(self) -> nn.Module:
        return self.network(self._config)

    @staticmethod
    def network(config: Mapping[str, Any]) -> nn.Module:
        return make_model(_hidden(config))

    @staticmethod
    def example_input(config: Mapping[str, Any]) -> Tensor:
        return torch.linspace(-1.0, 1.0, 2 * NUM_FEATURES).reshape(2, NUM_FEATURES)

    def train(self, model: nn.Module, run: Run) -> int:
        fit(model, *self._train, run)
        return len(self._train[1])

    def class_losses(self, model: nn.Module) -> dict[str, ClassLoss]:
        features, labels = (torch.cat(both) for both in zip(self._train, self._test, strict=True))
        losses = functional.binary_cross_entropy_with_logits(model(features)[:, 0], labels, reduction="none")
        return class_losses_of(labels.cpu().numpy(), losses.cpu().numpy())

    def evaluate(self, model: nn.Module) -> Scores:
        return score(model, *self._test)


def _hidden(config: Mapping[str, Any]) -> int:
    hidden = int(settings_of(config, hidden=0)["hidden"])
    if not 0 <= hidden <= MOST_HIDDEN:
        raise ContractError.of_job(f"expected task_config.hidden from 0 to {MOST_HIDDEN}, got {hidden}")
    return hidden


def tensors(patients: Patients, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return features fp32 [n, NUM_FEATURES] and labels fp32 [n] on `device`."""
    return torch.tensor(patients.features, device=device), torch.tensor(patients.labels, device=device)


def make_model(hidden: int) -> nn.Module:
    """Map features fp32 [n, NUM_FEATURES] to one logit each, [n, 1]."""
    if hidden == 0:
        return nn.Linear(NUM_FEATURES, 1)
    return nn.Sequential(nn.Linear(NUM_FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def fit(model: nn.Module, features: Tensor, labels: Tensor, run: Run) -> None:
    """Train `model` in place by SGD on the log loss."""
    for rows in run.batches(len(labels)):
        with run.autocast():
            logits = model(features[rows])[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits.float(), labels[rows])
        model.zero_grad()
        (loss + run.proximal(model)).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        _step_(model, run.learning_rate)
        run.report(loss)


@torch.no_grad()
def _step_(model: nn.Module, learning_rate: float) -> None:
    """As torch.optim.SGD, to the bit; the first optimizer of a process costs it a second of imports."""
    for param in model.parameters():
        if param.grad is not None:
            param.sub_(param.grad.add(param, alpha=WEIGHT_DECAY), alpha=learning_rate)


def score(model: nn.Module, features: Tensor, labels: Tensor) -> Scores:
    """Score `model` on patients it was not trained on."""
    with torch.no_grad():
        logits = model(features)[:, 0]
    cases = {
        "loss": functional.binary_cross_entropy_with_logits(logits, labels, reduction="none"),
        "accuracy": ((logits > 0) == (labels > 0)).float(),
    }
    area = auc(logits, labels)
    if area is None:
        return Scores.of_cases(cases)
    again = auc_again(logits, labels)
    return Scores.of_cases(cases, metrics={"auc": area}, resample=lambda rows: {"auc": again(rows)})


if __name__ == "__main__":
    raise SystemExit(main())
