"""`fedbus chaos` as people run it: two seeds in short form, every kill point, and a Ctrl-C in the middle.

Each run has a broker of its own. Only what must hold is asserted, never a time: the machine may be busy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbus.bench.chaos.plan import schedule
from fedbus.runtime.faults import Point
from tests.other_processes import commands, with_temporary_folder

pytestmark = pytest.mark.timeout(900)

Chaos = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Chaos]:
    """Starts `fedbus chaos`; everything it starts inherits TMPDIR, by which `left_behind` knows it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from fedbus.cli.app import main; main()", "chaos", *arguments],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def left_behind(tmp_path: Path) -> list[str]:
    """Live processes and folders of a run that has ended.

    A site that was killed leaves the folder of its trainer's socket, a few bytes that nobody else could remove.
    """
    found = [path.name for path in tmp_path.glob("fedbus-chaos-*")]
    return found + commands(with_temporary_folder(tmp_path))


@pytest.mark.parametrize(("seed", "how"), [(1, ()), (2, ("--kits",))], ids=["passwords", "kits"])
def test_nothing_is_lost_or_counted_twice_whatever_is_killed(
    chaos: Chaos, tmp_path: Path, seed: int, how: tuple[str, ...]
) -> None:
    # when everything is killed, frozen and cut, also where all of it is sealed and signed
    process = chaos("--seed", str(seed), "--minutes", "0.4", "-o", "json", *how)
    out, err = process.communicate()
    # then every promise is kept
    assert process.returncode == 0, err
    (outcome,) = json.loads(out)
    assert outcome["failures"] == []
    assert all(row["met"] in (True, None) for row in outcome["rows"])
    # and what was done is what the seed says
    sites = ("site-a", "site-b", "site-c", "site-d")
    deeds = [(deed.at_s, str(deed.act), deed.victim, deed.for_s) for deed in schedule(seed, sites, within_s=24)]
    assert [(d["at_s"], d["act"], d["victim"], d["for_s"]) for d in outcome["schedule"]] == deeds
    assert figure(outcome["rows"], "versions") > 0
    assert left_behind(tmp_path) == []


def figure(rows: list[dict[str, Any]], what: str) -> float:
    return next(float(row["value"]) for row in rows if row["case"].endswith(f": {what}"))


def test_every_kill_point_is_reached_and_survived(chaos: Chaos, tmp_path: Path) -> None:
    process = chaos("--kill-points", "-o", "json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    rows = json.loads(out)
    assert all(row["met"] in (True, None) for row in rows), err
    assert {row["case"].partition(":")[0] for row in rows} >= set(Point)
    assert left_behind(tmp_path) == []


def test_ctrl_c_in_the_middle_leaves_nothing_behind(chaos: Chaos, tmp_path: Path) -> None:
    # given a run that has begun
    process = chaos("--seed", "1", "--minutes", "5")
    assert process.stdout is not None
    assert process.stdout.readline()
    # when
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    # then
    assert process.returncode == 130, err
    assert "stopped by SIGINT" in err
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("seed", ["", "a", "2..1", "1..", "-1"])
def test_a_seed_that_is_none_is_wrong_usage(chaos: Chaos, seed: str) -> None:
    process = chaos(f"--seed={seed}")
    _, err = process.communicate()
    assert process.returncode == 2
    assert "expected a number such as 7, or a range such as 1..20" in err
