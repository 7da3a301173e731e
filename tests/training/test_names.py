"""Which names of metrics may leave a site."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedbus.tasks.digits import Digits
from fedbus.training.names import MetricNames, texts_in

TASK = '''
"""Scores of Erika Musterfrau's ward."""
from enum import Enum

class Organ(Enum):
    left_ventricle = 1
    myocardium = 2

def row(x, y):
    return {"f1": x, "a": y}

class Heart:
    metrics = ("HD95 (mm)", "q")

    def evaluate(self, model, patient):
        threshold = 0.5
        return {f"dice_{patient}": threshold, "val auc": 0.5}
'''


@pytest.fixture
def heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    (tmp_path / "heart_of_ward_seven.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "heart_of_ward_seven", raising=False)
    from heart_of_ward_seven import Heart

    found: type = Heart
    return found


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "val auc",
        "val_auc",
        "dice_left_ventricle",
        "dice/myocardium",
        "dice/3",
        "dice/17",
        "f1",
        "F1 threshold",
        "HD95 (mm)",
        "dice/q",
        "val auc/hd95 mm/2",
    ],
)
def test_a_name_made_of_what_the_author_wrote_may_leave(heart: type, name: str) -> None:
    assert MetricNames(heart).may_leave(name)


@pytest.mark.parametrize(
    "name",
    [
        "Mustermann",
        "dice_Mustermann",
        "dice_mustermann_erika",
        "dice/123",
        "dice/01.02.53",
        "dice/1/2/3",
        "07",
        "",
        "dice\n",
        "dice\x1b[2J",
        "dice/\u0661\u0662\u0663",
        "dice_x_y",
        "dice_a",
        "Erika Musterfrau",
        "ventricle",
        "dice" * 30,
    ],
)
def test_a_name_with_anything_else_stays(heart: type, name: str) -> None:
    assert not MetricNames(heart).may_leave(name)


def test_words_of_the_job_may_stand_in_a_name(heart: type) -> None:
    spec = {"task_config": {"classes": ["Liver", "left kidney"]}, "stop": {"metric": "score"}}
    names = MetricNames(heart, tuple(texts_in(spec)))
    assert all(names.may_leave(name) for name in ("dice/liver", "dice_left_kidney", "score", "classes/1"))
    assert not names.may_leave("dice/kidney")


def test_names_that_an_object_declares_are_no_author_s(heart: type) -> None:
    task = heart()
    task.metrics = ("Mustermann",)
    assert not MetricNames(type(task)).may_leave("Mustermann")


def test_helpers_of_the_task_s_package_count_as_its_code() -> None:
    names = MetricNames(Digits)
    assert all(names.may_leave(name) for name in ("accuracy", "loss", "accuracy_rare"))


def test_a_task_without_source_may_declare_its_names() -> None:
    names = MetricNames(type("Made", (), {"metrics": ["mse"], "__module__": "nowhere"}))
    assert names.may_leave("mse")
    assert not names.may_leave("mae")
