"""Values per test case: what a task may give, and the metrics that they make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedbus.errors import ContractError
from fedbus.training.answers import cases_of, scoring_answer
from fedbus.training.names import MetricNames
from fedbus.training.task import Scores

VALUES = [0.5, 1.0, math.nan]
UNEVEN = {"dice": [0.5], "loss": [0.5, 0.25]}


@pytest.mark.parametrize(
    "values", [[0.5, 1.0, math.nan], np.array([0.5, 1, np.nan]), torch.tensor([0.5, 1.0, math.nan])]
)
def test_a_metric_is_the_mean_over_the_cases_that_have_a_value(values: Any) -> None:
    scores = Scores.of_cases({"dice": values, "dice/anterior": [math.nan] * 3}, metrics={"auc": 0.75})
    assert scores.metrics == {"dice": 0.75, "auc": 0.75}
    assert scores.num_examples == 3


def test_a_loss_that_is_not_finite_for_one_case_is_not_finite_for_all() -> None:
    count, metrics = scoring_answer(Scores.of_cases({"loss": [0.5, math.nan]}))
    assert (count, metrics.values, metrics.not_finite) == (2, {}, ("loss",))


@pytest.mark.parametrize("cases", [{}, UNEVEN, {"dice": 0.5}, {"dice": "high"}, {"dice": [[0.5]]}])
def test_what_is_no_value_per_case_is_refused_at_once(cases: Any) -> None:
    with pytest.raises(ContractError, match="per test case"):
        Scores.of_cases(cases)


def test_only_values_of_metrics_that_may_leave_are_used() -> None:
    scores = Scores.of_cases({"dice": [0.5, 1.0], "dice/Mustermann": [0.5, 1.0]})
    _, metrics = scoring_answer(scores, lambda name: name == "dice")
    assert set(cases_of(scores, metrics).values) == {"dice"}


def test_scores_without_cases_have_none() -> None:
    scores = Scores(metrics={"auc": 0.5}, num_examples=7)
    found = cases_of(scores, scoring_answer(scores)[1])
    assert (found.count, dict(found.values), found.resample) == (7, {}, None)


@pytest.mark.parametrize(("key", "value"), [("cases", [0.5]), ("resample", 0.5), ("cases", {"auc": "high"})])
def test_cases_that_are_none_are_named(key: str, value: Any) -> None:
    scores = Scores(metrics={"auc": 0.5}, num_examples=3, **{key: value})
    with pytest.raises(ContractError, match=r"cases|resample|per test case"):
        cases_of(scores, scoring_answer(scores)[1])


def test_the_metric_of_a_class_may_leave_when_the_job_names_the_class() -> None:
    class Segments:
        """A task of a job that names its classes."""

        metrics = ("dice",)

    names = MetricNames(Segments, ["hippocampus", "anterior"])
    assert names.may_leave("dice/anterior")
    assert not names.may_leave("dice/posterior")
