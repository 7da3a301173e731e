"""A process from outside: Ctrl-C at any moment, and answers that cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import os, signal, sys
from pathlib import Path
from fedbus.errors import DataError
from fedbus.runtime.process import run_async, run_process

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)

def in_the_middle():
    try:
        ctrl_c()
    finally:
        print("closed")

def in_an_import_that_catches_everything():
    Path(sys.argv[2], "greedy.py").write_text(
        "import os, signal\\ntry:\\n    os.kill(os.getpid(), signal.SIGINT)\\nexcept BaseException:\\n    pass\\n"
    )
    sys.path.insert(0, sys.argv[2])
    import greedy

def in_a_finalizer():
    class Thing:
        def __del__(self):
            ctrl_c()
    Thing()

def in_an_event_loop():
    import asyncio
    async def asks():
        asyncio.get_running_loop().call_soon(ctrl_c)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            print("closed")
    run_async(asks())

def at_the_exit():
    import atexit
    atexit.register(ctrl_c)

def answers():
    print("an answer")

def answers_at_length():
    for number in range(100_000):
        print(number)

def fails():
    raise DataError("no data")

def leaves():
    sys.exit(3)

def has_a_bug():
    raise KeyError("a bug")

run_process(globals()[sys.argv[1]])
"""


def run(command: str, folder: Path, **streams: int) -> tuple[int, str, str]:
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    done = subprocess.run([sys.executable, "-c", COMMAND, command, folder], text=True, timeout=30, check=False, **piped)
    return done.returncode, done.stdout or "", done.stderr or ""


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("in_the_middle", "closed\n"),
        ("in_an_import_that_catches_everything", ""),
        ("in_a_finalizer", ""),
        ("in_an_event_loop", "closed\n"),
        ("at_the_exit", ""),
    ],
)
def test_ctrl_c_is_130_and_no_word_at_any_moment(command: str, answer: str, tmp_path: Path) -> None:
    assert run(command, tmp_path) == (130, answer, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["answers", "answers_at_length"])
def test_an_answer_that_cannot_be_written_is_one_line_and_1(command: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        said = run(command, tmp_path, stdout=full.fileno())
    assert said == (1, "", "fedbus: the output could not be written: No space left on device\n")


@pytest.mark.parametrize("command", ["answers", "answers_at_length"])
def test_a_reader_that_has_seen_enough_is_no_error_to_speak_of(command: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, command, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        process.stdout.close()  # type: ignore[union-attr]
        assert process.stderr.read() == b""  # type: ignore[union-attr]
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [("answers", (0, "an answer\n", "")), ("fails", (1, "", "fedbus: no data\n")), ("leaves", (3, "", ""))],
)
def test_answers_errors_and_exit_codes_are_those_of_the_command(
    command: str, said: tuple[int, str, str], tmp_path: Path
) -> None:
    assert run(command, tmp_path) == said


def test_a_bug_shows_its_trace(tmp_path: Path) -> None:
    code, _, errors = run("has_a_bug", tmp_path)
    assert code == 1
    assert "KeyError: 'a bug'" in errors


@pytest.mark.parametrize("module", ["services.site", "services.aggregator", "fedbus.cli.app"])
def test_ctrl_c_is_heard_from_the_first_line_on(module: str) -> None:
    """What a daemon or command imports before Ctrl-C is seen to is next to nothing."""
    code = f"""
import os, signal, sys
import fedbus.runtime.process as process
before = set(sys.modules)
process.run_process = lambda main: None
import runpy
runpy.run_module("{module}", run_name="__main__")
print(*(name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert set(done.stdout.split()) <= {"fedbus.cli", "services", "services.site", "services.aggregator"}


def test_ctrl_c_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    ignoring = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{COMMAND}"
    arguments = [sys.executable, "-c", ignoring, "in_the_middle", tmp_path]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")
