"""Start and stop of a daemon, seen from outside: exit codes and what is said."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

DAEMON = """
import asyncio, sys
from fedbus.errors import DataError, SettingsError, StoreError
from fedbus.runtime.lifecycle import run_daemon, until_stopped
from fedbus.runtime.logging import configure_logging

async def ends(stop):
    pass

async def stops(stop):
    async def work():
        print("ready", flush=True)
        await asyncio.Event().wait()
    async with asyncio.TaskGroup() as group:
        await until_stopped(stop, group.create_task(work()))
    print("stopped in order", flush=True)

async def hangs(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.Event().wait()

async def fail(error):
    raise error

async def fails(stop):
    raise DataError("data folder x is empty: put data there")

async def misconfigured(stop):
    raise SettingsError("threads: must be positive")

async def fails_in_groups(stop):
    async with asyncio.TaskGroup() as outer:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(StoreError("the disk is full")))
            group.create_task(asyncio.Event().wait())

async def has_a_bug(stop):
    raise KeyError("a bug")

async def has_a_bug_among_errors(stop):
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(StoreError("the disk is full")))
        group.create_task(fail(KeyError("a bug")))

configure_logging()
sys.exit(run_daemon(globals()[sys.argv[1]]))
"""


@contextmanager
def daemon(main: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, main], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def run(main: str) -> tuple[int, str]:
    with daemon(main) as process:
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order_with_0(number: signal.Signals) -> None:
    with daemon("stops") as process:
        assert said(process) == "ready"
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "stopped in order\n")
    assert number.name in errors


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)], ids=["same", "other"]
)
def test_a_second_signal_skips_the_wait_with_130(first: signal.Signals, second: signal.Signals) -> None:
    with daemon("hangs") as process:
        assert said(process) == "ready"
        process.send_signal(first)
        assert said(process) == "stopping"
        process.send_signal(second)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "second-signal" in errors


def test_an_end_without_a_signal_is_0() -> None:
    assert run("ends") == (0, "")


@pytest.mark.parametrize(
    ("main", "code", "says"),
    [
        ("fails", 1, "fedbus: data folder x is empty: put data there\n"),
        ("fails_in_groups", 1, "fedbus: the disk is full\n"),
        ("misconfigured", 2, "fedbus: threads: must be positive\n"),
    ],
)
def test_an_error_of_ours_is_one_message_and_a_code(main: str, code: int, says: str) -> None:
    assert run(main) == (code, says)


@pytest.mark.parametrize("main", ["has_a_bug", "has_a_bug_among_errors"])
def test_a_bug_shows_its_trace(main: str) -> None:
    code, errors = run(main)
    assert code == 1
    assert "Traceback" in errors
    assert "KeyError: 'a bug'" in errors
