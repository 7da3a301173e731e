"""Tasks are imported in a child: whatever one of them does there, the others are looked at and the doctor lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.doctor.finding import Status
from fedbus.doctor.limits import Deadline
from fedbus.doctor.tasks import examine_tasks, gpu_finding

MODULE = """
import os, sys, time
class Good:
    def __init__(self): pass
    def model(self): pass
    def train(self): pass
    def evaluate(self): pass
def __getattr__(name):
    if name == "Exits": os._exit(7)
    if name == "Quits": sys.exit("no")
    if name == "Hangs": time.sleep(600)
    raise ImportError("No module named 'their_library'")
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs tasks with these classes of the module, each under the name of its class in lower case."""

    def install(*classes: str) -> list[str]:
        (tmp_path / "their_tasks.py").write_text(MODULE)
        info = tmp_path / "their_tasks-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their_tasks\nVersion: 1.0\n")
        points = "".join(f"{name.lower()} = their_tasks:{name}\n" for name in classes)
        (info / "entry_points.txt").write_text(f"[fedbus.tasks]\n{points}")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        return [name.lower() for name in classes]

    return install


def test_one_that_fails_quits_or_ends_the_process_says_so_and_the_others_are_fine(tasks):
    names = tasks("Lacks", "Exits", "Quits", "Good")
    found = {f.check: f for f in examine_tasks(names, device="cpu", gpus=0, deadline=Deadline(100))}
    assert {check: finding.status for check, finding in found.items()} == {
        "task lacks": Status.FAIL,
        "task exits": Status.FAIL,
        "task quits": Status.FAIL,
        "task good": Status.OK,
        "gpu": Status.OK,
    }
    assert "their_library" in found["task lacks"].text
    assert "ends the whole process" in found["task exits"].text


def test_one_that_never_comes_back_is_left(tasks):
    found = list(examine_tasks(tasks("Hangs"), device="cpu", gpus=0, deadline=Deadline(2)))
    assert [(f.check, f.status) for f in found] == [("task hangs", Status.WARN)]


@pytest.mark.parametrize(
    ("seen", "device", "there", "status"),
    [
        (["NVIDIA H200"], "auto", 1, Status.OK),
        ([], "auto", 0, Status.OK),
        ([], "auto", 1, Status.WARN),
        ([], "cuda", 1, Status.FAIL),
        ([], "cuda:0", 0, Status.FAIL),
    ],
)
def test_what_torch_sees_against_what_is_there(seen, device, there, status):
    assert gpu_finding(seen, "2.13", device=device, there=there).status is status
