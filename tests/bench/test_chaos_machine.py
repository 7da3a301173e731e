"""The machine of a daemon in a chaos run: what is wrong with it meets the process that lives there, and passes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbus.bench.chaos import machine
from fedbus.bench.chaos.machine import Machine
from fedbus.local.federation import wait_until
from tests.waits import SOON

PROBE = """
import os, sqlite3, sys, time
from pathlib import Path

storage, done = Path(sys.argv[1]), Path(sys.argv[2])
db = sqlite3.connect(storage / "ledger.sqlite")
db.execute("CREATE TABLE IF NOT EXISTS t (x)")
ACTS = {
    "time": lambda: str(time.time()),
    "open": lambda: (storage / "a").write_text("a"),
    "list": lambda: os.listdir(storage),
    "fsync": lambda: os.fsync(os.open(done.parent, os.O_RDONLY)),
    "sql": lambda: db.execute("INSERT INTO t VALUES (1)"),
    "log": lambda: os.write(2, b"said\\n"),
}
for line in sys.stdin:
    try:
        answer = ACTS[line.strip()]()
    except OSError as exc:
        answer = exc.strerror
    print(answer, file=done.open("a"))
"""


class Inhabitant:
    """A process on a machine that does what it is told to, one act after the other."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(folder / "machine")
        self.answers = folder / "answers"
        self.answers.touch()
        self.log = folder / "log"
        storage = folder / "storage"
        storage.mkdir()
        (folder / "probe.py").write_text(PROBE)
        command = [sys.executable, "-m", machine.__name__, self.machine.path, storage, "probe", storage, self.answers]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, text=True, env=env)

    def told(self, act: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{act}\n")
        self.process.stdin.flush()

    def answer(self, act: str) -> str:
        before = len(self.answered)
        self.told(act)
        return wait_until(lambda: self.answered[before:], within=SOON, what=act)[0]

    @property
    def answered(self) -> list[str]:
        return self.answers.read_text().splitlines()


@pytest.fixture
def inhabitant(tmp_path: Path) -> Iterator[Inhabitant]:
    found = Inhabitant(tmp_path)
    yield found
    found.process.kill()
    found.process.communicate()


def test_its_clock_steps_and_steps_back(inhabitant: Inhabitant) -> None:
    for ahead_s in (600.0, -600.0, 0.0):
        inhabitant.machine.clock_ahead_s = ahead_s
        assert abs(float(inhabitant.answer("time")) - time.time() - ahead_s) < 60


@pytest.mark.parametrize("act", ["open", "list", "fsync", "sql"])
def test_what_needs_its_storage_returns_when_that_is_back(inhabitant: Inhabitant, act: str) -> None:
    inhabitant.answer("time")
    # given storage that hangs
    inhabitant.machine.storage_hangs = True
    inhabitant.told(act)
    # when the process waits for it, it does nothing else
    inhabitant.told("time")
    wait_until(lambda: inhabitant.machine.asked_in_vain, within=SOON, what="the process to wait")
    assert len(inhabitant.answered) == 1
    # then it goes on when the storage is back
    inhabitant.machine.storage_hangs = False
    wait_until(lambda: len(inhabitant.answered) == 3, within=SOON, what="the answers")


def test_its_log_is_full_and_has_room_again(inhabitant: Inhabitant) -> None:
    assert inhabitant.answer("log") == "5"
    inhabitant.machine.log_is_full = True
    wait_until(lambda: inhabitant.answer("log") == "No space left on device", within=SOON, what="a full disk")
    said = inhabitant.log.read_text()
    inhabitant.machine.log_is_full = False
    wait_until(lambda: inhabitant.answer("log") == "5", within=SOON, what="room")
    assert len(inhabitant.log.read_text()) == len(said) + len("said\n")


def test_a_new_process_finds_the_machine_as_it_is(tmp_path: Path) -> None:
    Machine(tmp_path / "machine").clock_ahead_s = 600.0
    again = Machine(tmp_path / "machine")
    assert (again.clock_ahead_s, again.storage_hangs, again.log_is_full) == (600.0, False, False)
