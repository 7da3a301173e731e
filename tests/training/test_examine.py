"""Statistics that a task returns, as they may leave its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbus.core.protocol.statistics import Column, Images, Labels, Plan, Statistics
from fedbus.errors import ContractError
from fedbus.training import protocol as p
from fedbus.training.examine import examine, with_names_that_may_leave


def command(task: str, data: Path, **options: Any) -> p.Examine:
    return p.Examine(job="heart", task=task, task_config={}, seed=0, site="va", data=str(data), plan=Plan(**options))


def test_words_that_come_from_data_do_not_leave() -> None:
    # given statistics whose names are partly those of patients
    statistics = Statistics(
        examples=30,
        columns=(Column(name="age"), Column(name="Jane Doe")),
        labels=Labels(counts={"0": 10, "Jane Doe": 20}),
        images=Images(
            dtypes={"int16": 20, "Jane": 10},
            orientations={"RAS": 20, "JANE": 10},
            shapes={"3x4x5": 20, "doe": 10},
        ),
        problems={"truncated": 6, "jane-doe": 7, "own-word": 8},
    )
    # when names that the task's code has may leave
    found = with_names_that_may_leave(statistics, {"age", "own-word"}.__contains__)
    # then no other does, and its count is told under a word of ours
    assert [column.name for column in found.columns] == ["age"]
    assert found.labels is not None
    assert found.labels.counts == {"0": 10, "other": 20}
    assert found.images is not None
    assert (found.images.dtypes, found.images.orientations) == ({"int16": 20, "other": 10}, {"RAS": 20, "other": 10})
    assert found.images.shapes == {"3x4x5": 20, "other": 10}
    assert found.problems == {"truncated": 6, "other": 7, "own-word": 8}


def test_a_table_that_is_not_there_is_a_problem_and_no_error(tmp_path: Path) -> None:
    found = examine(command("heart_disease", tmp_path))
    assert found.statistics is not None
    assert found.statistics.problems == {"no-table": 5}


def test_a_task_without_statistics_has_none_to_give(tmp_path: Path) -> None:
    assert examine(command("synthetic", tmp_path)).statistics is None


class Answers:
    """A task whose `statistics` returns what is no statistics."""

    @classmethod
    def statistics(cls, site: object, plan: Plan) -> object:
        return {"examples": 30}


def test_an_answer_that_is_none_is_said_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        examine(command("answers", tmp_path), load=lambda name: Answers)
    assert caught.value.said == "statistics() returned a dict: expected Statistics"
