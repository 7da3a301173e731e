from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedbus.errors import TaskError
from fedbus.tasks.heart_disease import HeartDisease
from fedbus.training.registry import load_task, task_names

SITE_PACKAGE = Path(__file__).parent / "site_package"


def test_the_built_in_tasks_are_installed() -> None:
    assert {"heart_disease", "digits", "fashion_mnist", "synthetic"} <= set(task_names())
    assert load_task("heart_disease") is HeartDisease


def test_an_unknown_task_is_answered_with_those_installed() -> None:
    with pytest.raises(TaskError, match=r"'kidney' is not installed here; installed tasks: .*digits.*heart_disease"):
        load_task("kidney")


def test_tasks_of_another_package_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE_PACKAGE))

    assert {"blood_pressure", "stub", "heart_disease"} <= set(task_names())
    assert load_task("blood_pressure").__name__ == "BloodPressure"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_task", r"is no task: it lacks train, evaluate\(\)"),
        ("lost", "cannot be imported: .*Lost"),
        ("broken_import", "cannot be imported: No module named 'module_that_is_not_there'"),
    ],
)
def test_a_broken_package_is_named(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE_PACKAGE))

    with pytest.raises(TaskError, match=message):
        load_task(name)


def test_the_daemon_side_imports_no_torch() -> None:
    program = (
        "import sys; from fedbus.training import protocol, registry; registry.task_names()\n"
        "from fedbus.tasks import heart_disease_data\n"
        "raise SystemExit('torch' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
