"""What a task may return, and what becomes of what it may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fedbus.errors import ContractError
from fedbus.training.answers import MAX_METRICS, MAX_NOTES, Notebook, read_metrics, scoring_answer, training_answer
from fedbus.training.losses import Losses
from fedbus.training.task import Scores, TrainResult

NOBODY = "Mustermann"


def losses(*values: float) -> Losses:
    reported = Losses()
    for value in values:
        reported.add(torch.tensor(value))
    return reported


class Counter:
    """Counts as an index, as a registry's own integer type may."""

    def __index__(self) -> int:
        return 9


# ------------------------------------------------------------------ counts


@pytest.mark.parametrize(
    ("returned", "count"),
    [
        (5, 5),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (torch.tensor(5), 5),
        (np.array(5), 5),
        (Counter(), 9),
        (TrainResult(num_examples=torch.tensor(6)), 6),
    ],
)
def test_whatever_python_takes_for_an_index_is_a_number_of_examples(returned: object, count: int) -> None:
    found, _ = training_answer(returned, losses())
    assert found == count
    assert type(found) is int


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "train() returned None: expected a number of examples >= 1"),
        (0, "train() returned 0"),
        (True, "train() returned True"),
        (torch.tensor(True), "train() returned a value of type Tensor"),
        (10**30, "train() returned a value of type int"),
        (12.0, "train() returned a value of type float"),
        ((12, {"loss": 1.0}), "train() returned a tuple of 2: expected a number of examples >= 1, or TrainResult("),
        ({"loss": 1.0}, "train() returned a dict of 1"),
        (NOBODY, "train() returned a value of type str"),
        (TrainResult(num_examples=NOBODY), "a wrong TrainResult.num_examples: expected a number of examples >= 1"),
    ],
)
def test_what_is_no_number_of_examples_is_named_with_what_was_expected(returned: object, words: str) -> None:
    with pytest.raises(ContractError) as found:
        training_answer(returned, losses())
    assert words in found.value.said
    assert NOBODY not in found.value.said


def test_the_value_itself_stands_in_the_text_for_the_log_only() -> None:
    with pytest.raises(ContractError) as found:
        training_answer(NOBODY, losses())
    assert NOBODY in str(found.value)
    assert NOBODY not in found.value.said


@pytest.mark.parametrize("returned", [(0.5, 3, {}), {"auc": 0.5}, None, 0.5, [Scores(metrics={}, num_examples=1)]])
def test_what_is_no_score_is_named_with_what_was_expected(returned: object) -> None:
    with pytest.raises(ContractError, match=r"evaluate\(\) returned .*: expected Scores\(metrics="):
        scoring_answer(returned)


@pytest.mark.parametrize("metrics", [None, [0.5], 0.5, "auc"])
def test_scores_without_a_mapping_name_the_field(metrics: Any) -> None:
    with pytest.raises(ContractError, match=r"evaluate\(\) returned a wrong Scores.metrics: expected a mapping"):
        scoring_answer(Scores(metrics=metrics, num_examples=3))


@pytest.mark.parametrize("count", [-1, None, 3.0, "three"])
def test_scores_of_a_wrong_count_name_the_field(count: Any) -> None:
    with pytest.raises(ContractError, match=r"evaluate\(\) returned a wrong Scores.num_examples: expected"):
        scoring_answer(Scores(metrics={}, num_examples=count))


def test_a_result_of_another_type_with_the_same_fields_counts() -> None:
    @dataclass
    class Mine:
        num_examples: int = 4
        metrics: Mapping[str, float] = field(default_factory=lambda: {"auc": 0.5})

    count, metrics = scoring_answer(Mine())
    assert (count, metrics.values) == (4, {"auc": 0.5})


# ------------------------------------------------------------------ metrics


def test_the_mean_loss_stands_where_the_task_gives_none() -> None:
    assert training_answer(3, losses(1.0, 2.0))[1].values == {"loss": 1.5}
    given = TrainResult(num_examples=3, metrics={"loss": 9.0})
    assert training_answer(given, losses(1.0, 2.0))[1].values == {"loss": 9.0}


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5])[0], True, 1])
def test_every_number_is_a_metric(value: Any) -> None:
    assert read_metrics({"dice": value}, "evaluate()").values == {"dice": float(value)}


@pytest.mark.parametrize(
    "value", [[0.25, 0.5], (0.25, 0.5), np.array([0.25, 0.5]), torch.tensor([0.25, 0.5]), {0: 0.25, 1: 0.5}]
)
def test_a_list_of_numbers_becomes_one_metric_each(value: Any) -> None:
    assert read_metrics({"dice": value}, "evaluate()").values == {"dice/0": 0.25, "dice/1": 0.5}


def test_mappings_in_mappings_become_names_with_a_slash() -> None:
    found = read_metrics({"val": {"auc": 0.75, "dice": [0.5]}}, "evaluate()")
    assert found.values == {"val/auc": 0.75, "val/dice/0": 0.5}


@pytest.mark.parametrize("value", [None, "epoch 3", b"x", 1j, object(), torch.zeros(9, 9), [[[0.5]]]])
def test_a_metric_that_is_no_number_costs_nothing_but_itself(value: Any) -> None:
    found = read_metrics({"loss": 0.5, "best": value}, "evaluate()")
    assert found.values == {"loss": 0.5}
    (note,) = found.notes
    assert note.startswith("evaluate(): metric best")
    assert "is left out: expected a number, got" in note


def test_metrics_that_are_no_mapping_cost_the_training_nothing() -> None:
    returned = TrainResult(num_examples=3, metrics=None)
    count, metrics = training_answer(returned, losses(0.5))
    assert (count, metrics.values) == (3, {"loss": 0.5})
    assert metrics.notes == ("train() gave None (type NoneType) as metrics: expected a mapping of names to numbers",)


def test_a_metric_that_is_not_finite_is_named() -> None:
    found = read_metrics({"loss": float("nan"), "auc": 0.5, "dice": [float("inf"), 1.0]}, "evaluate()")
    assert found.values == {"auc": 0.5, "dice/1": 1.0}
    assert found.not_finite == ("loss", "dice/0")
    assert len(found.notes) == 2


def test_a_name_that_may_not_leave_is_left_out_whatever_its_value() -> None:
    values = {"auc": 0.5, NOBODY: 0.5, f"dice/{NOBODY}": float("nan")}
    found = read_metrics(values, "evaluate()", lambda name: NOBODY not in name)
    assert (found.values, found.not_finite) == ({"auc": 0.5}, ())
    assert all("metrics = (...,)" in note for note in found.notes)


def test_there_are_no_more_metrics_than_a_person_reads() -> None:
    found = read_metrics({f"m{n}": 0.5 for n in range(1000)}, "evaluate()")
    assert len(found.values) == MAX_METRICS
    assert len(found.notes) == 1


def test_a_note_is_told_once() -> None:
    notebook = Notebook()
    assert notebook.fresh(["a", "b", "a"]) == ("a", "b")
    assert notebook.fresh(["b", "c"]) == ("c",)
    assert len(notebook.fresh([f"note {n}" for n in range(1000)])) == MAX_NOTES - 3
    assert notebook.fresh(["one more"]) == ()
