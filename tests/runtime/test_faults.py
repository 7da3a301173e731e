"""Kill points: off in production, one certain death when a chaos run asks for it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from fedbus.errors import SettingsError
from fedbus.runtime.faults import Point, fault_hook, nothing

DIE = """
from fedbus.runtime.faults import Point, fault_hook
reached = fault_hook("marked:3")
for visit in range(1, 5):
    reached(Point.FOLDED)
    print(visit, flush=True)
    reached(Point.MARKED)
"""


def test_without_a_fault_the_hook_is_the_function_that_does_nothing() -> None:
    assert fault_hook(None) is nothing


def test_the_process_dies_at_the_asked_visit_of_the_asked_point() -> None:
    done = subprocess.run([sys.executable, "-c", DIE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2", "3"])


@pytest.mark.parametrize("text", ["nowhere", "marked:soon", ":2"])
def test_a_fault_that_does_not_exist_is_refused_with_the_points_there_are(text: str) -> None:
    with pytest.raises(SettingsError, match=f"expected POINT or POINT:N.*{Point.MARKED}"):
        fault_hook(text)
