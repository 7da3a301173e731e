"""Output that cannot be written: a daemon goes on and says later what was lost, a command says it and fails."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbus.runtime.streams import LossyFile

Pipe = tuple[int, LossyFile]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The reading end of a pipe that holds two pages, and a daemon's file on the other end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 * 4096)
    yield reader, LossyFile(writer, patience_ms=1)
    os.close(reader)
    os.close(writer)


# ------------------------------------------------------------------ one stream


def test_lines_for_a_reader_that_stands_still_are_dropped_and_counted(pipe: Pipe) -> None:
    # given a pipe that is full, and two lines more
    reader, file = pipe
    file.write(b"x" * 8191 + b"\n")
    file.write(b"one\n")
    file.write(b"two\n")
    # when its reader goes on
    os.read(reader, 8192)
    file.write(b"three\n")
    # then it is told of them before the next line
    said = os.read(reader, 4096).decode().splitlines()
    assert said == ["fedbus: 2 lines were lost: the log could not be written (its reader does not read)", "three"]
    # and only once
    file.write(b"four\n")
    assert os.read(reader, 4096) == b"four\n"


def test_line_that_came_out_in_part_ends_before_the_next_one(pipe: Pipe) -> None:
    # given a line longer than the pipe
    reader, file = pipe
    file.write(b"x" * 9000 + b"\n")
    # when its reader has read what came
    assert os.read(reader, 9000) == b"x" * 8192
    file.write(b"next\n")
    # then the next line begins on a line of its own
    assert os.read(reader, 4096).decode().split("\n")[0] == ""


def test_line_longer_than_a_pipe_reaches_a_reader_that_reads() -> None:
    # given a program that waits for its reader, as commands do, and a reader
    code = (
        "import sys; from fedbus.runtime.streams import guard_command; guard_command();"
        "sys.stderr.write('x' * 1_000_000 + '\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=True, timeout=30)
    assert done.stderr == b"x" * 1_000_000 + b"\n"


# ------------------------------------------------------------------ a log

FULL_FOR_A_WHILE = """
import os, resource, structlog, sys
from fedbus.runtime.logging import configure_logging
configure_logging("info", sys.argv[1])
log = structlog.get_logger()
log.info("before")
no_more = os.fstat(2).st_size + 10
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (no_more, hard))
for _ in range(3):
    log.info("while it is full")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("after")
"""


def log_of(program: str, log: Path, *arguments: str) -> list[str]:
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", program, *arguments], stderr=file, check=True, timeout=30)
    return log.read_text().splitlines()


def test_what_a_full_log_has_lost_is_said_as_soon_as_there_is_room(tmp_path: Path) -> None:
    before, torn, lost, after = log_of(FULL_FOR_A_WHILE, tmp_path / "log", "json")
    assert len(torn) == 10
    assert (json.loads(before)["event"], json.loads(after)["event"]) == ("before", "after")
    said = json.loads(lost)
    assert (said["event"], said["level"], said["lines"]) == ("log-lines-lost", "warning", 3)
    assert said["text"] == "3 lines were lost: the log could not be written (File too large)"


def test_the_same_for_people(tmp_path: Path) -> None:
    *_, lost, after = log_of(FULL_FOR_A_WHILE, tmp_path / "log", "console")
    assert "3 lines were lost: the log could not be written (File too large)" in lost
    assert "after" in after


# ------------------------------------------------------------------ a whole process

DAEMON = """
import asyncio, os, signal, sys, structlog
from fedbus.errors import DataError
from fedbus.runtime.lifecycle import run_daemon
from fedbus.runtime.logging import configure_logging
from fedbus.runtime.process import run_process

async def serves(stop):
    print("to standard output")
    sys.stdin.read()  # until the test has broken what it wants to break
    for _ in range(3000):
        structlog.get_logger().warning("a line of a log that is longer than it needs to be")
    print("to standard error", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()

async def fails(stop):
    raise DataError("no data")

def main():
    configure_logging()
    return run_daemon(globals()[sys.argv[1]])

run_process(main)
"""


def daemon(main: str, **streams: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DAEMON, main], stdin=subprocess.PIPE, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("mode", ["full", "reader gone", "reader stands still", "closed"])
def test_daemon_goes_on_without_its_log_and_stops_as_asked(mode: str) -> None:
    # given a daemon whose log is full, gone, stuck or closed
    if mode == "full":
        with Path("/dev/full").open("wb") as full:
            process = daemon("serves", stdout=full, stderr=full)
    elif mode == "closed":
        process = daemon("serves", preexec_fn=lambda: [os.close(1), os.close(2)])
    else:
        process = daemon("serves", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if mode == "reader gone":
            process.stdout.close()  # type: ignore[union-attr]
    # when it says a lot, and is told to stop
    process.stdin.close()  # type: ignore[union-attr]
    # then it ends in order
    assert process.wait(timeout=60) == 0


def test_daemon_that_cannot_say_its_error_keeps_its_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        assert daemon("fails", stdout=full, stderr=full).wait(timeout=30) == 1
