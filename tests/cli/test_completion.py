"""What the shell is told at a Tab: names, quickly, and nothing else whatever is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from fedbus.cli import completion
from fedbus.cli.commands import app
from fedbus.local.federation import wait_until

PROGRAM = Path(sys.executable).with_name("fedbus")
JOBS = [["heart-0a1b2c3d", "running"], ["digits-11223344", "finished"]]
SECRET = "s3cret-of-the-submitter"


def at_tab(line: str, **env: str) -> dict[str, str]:
    """The environment in which bash asks what it may offer at the end of this line."""
    words = line.split(" ")
    return {"_FEDBUS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)} | env


def tab(line: str, **env: str) -> list[str]:
    """What is offered; nothing may be on standard error."""
    done = CliRunner().invoke(app, [], prog_name="fedbus", env=at_tab(line, **env))
    assert (done.stderr, done.exit_code) == ("", 0)
    return done.stdout.split()


def tab_as_process(line: str, home: Path, **env: str) -> list[str]:
    """The same of a process of its own."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("FEDBUS_")}
    whole = plain | {"FEDBUS_HOME": str(home)} | at_tab(line, **env)
    done = subprocess.run([PROGRAM], env=whole, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.split()


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the names of last time."""
    monkeypatch.setenv("FEDBUS_HOME", str(tmp_path))
    for name in ("FEDBUS_BROKER_URL", "FEDBUS_KIT", "FEDBUS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    completion.remember(None, completion.JOBS, [(job, state) for job, state in JOBS])
    completion.remember(None, completion.SITES, [("mercy", "online"), ("ucsf", "lost")])
    return tmp_path


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def askers(home: Path) -> list[psutil.Process]:
    """The processes that ask for names for this home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = completion.__name__ in process.cmdline() and process.environ().get("FEDBUS_HOME") == str(home)
            found += [process] if mine else []
    return found


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fedbus show ", ["heart-0a1b2c3d", "digits-11223344"]),
        ("fedbus watch dig", ["digits-11223344"]),
        ("fedbus abort ", ["heart-0a1b2c3d"]),
        ("fedbus rm ", ["digits-11223344"]),
        ("fedbus replay state --without ", ["mercy", "ucsf"]),
        ("fedbus --version show heart", ["heart-0a1b2c3d"]),
        ("fedbus show nothing-like", []),
    ],
)
def test_names_of_last_time_are_offered_where_they_fit(known: Path, line: str, offered: list[str]) -> None:
    assert tab(line) == offered


def test_a_job_that_was_just_submitted_is_offered_first(known: Path) -> None:
    completion.also(None, "new-99887766")
    assert tab("fedbus watch ") == ["new-99887766", "heart-0a1b2c3d", "digits-11223344"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"jobs": "heart"}',
        b'{"jobs": [["$(touch x)", "running"], ["a b", "running"], ["*", "running"], [1, 2], ["heart"]]}',
        b'{"jobs": [["heart", "running\\u001b[2J"]]}',
        b"[" * 200_000,
    ],
    ids=range(7),
)
def test_a_file_that_is_not_ours_offers_nothing(known: Path, content: bytes) -> None:
    (place,) = (known / "completion").glob("*.json")
    place.write_bytes(content)
    assert tab("fedbus show ") == []


def test_what_is_wrong_with_settings_is_not_said_in_the_middle_of_a_line(known: Path) -> None:
    wrong = {"FEDBUS_BORKER_URL": "x", "FEDBUS_CONFIG": "/nonexistent", "FEDBUS_KIT": "/nonexistent"}
    assert tab_as_process("fedbus show ", known, **wrong) == []
    assert tab("fedbus --config /nonexistent show heart", FEDBUS_HOME="/dev/null") == []


def test_who_does_not_answer_is_not_waited_for_and_no_password_is_in_a_list_of_processes(
    tmp_path: Path, silent_port: int
) -> None:
    url = f"amqp://submitter:{SECRET}@127.0.0.1:{silent_port}/fedbus"
    try:
        # when nothing is known yet, and again at once
        assert tab_as_process("fedbus show ", tmp_path, FEDBUS_BROKER_URL=url) == []
        asking = askers(tmp_path)
        assert tab_as_process("fedbus show ", tmp_path, FEDBUS_BROKER_URL=url) == []
        # then one process asks, and neither its arguments nor a file has the password
        assert [process.pid for process in askers(tmp_path)] == [process.pid for process in asking]
        assert SECRET not in str([process.cmdline() for process in asking])
        assert SECRET not in str([(path, path.read_bytes()) for path in (tmp_path / "completion").iterdir()])
    finally:
        for process in askers(tmp_path):
            process.send_signal(signal.SIGTERM)
    wait_until(lambda: not askers(tmp_path), within=timedelta(seconds=30), what="the end of the process that asks")


def test_zsh_and_fish_are_told_the_state_beside_the_name(known: Path) -> None:
    for shell, env in (
        ("zsh", {"_TYPER_COMPLETE_ARGS": "fedbus show heart"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "fedbus show heart", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ):
        said = " ".join(tab("fedbus show heart", **env | {"_FEDBUS_COMPLETE": f"complete_{shell}"}))
        assert "heart-0a1b2c3d" in said
        assert "running" in said
        assert "digits" not in said


def test_two_brokers_have_names_of_their_own(known: Path) -> None:
    url = "amqp://submitter:one@127.0.0.1:1/fedbus"
    completion.remember(url, completion.JOBS, [("elsewhere-00000000", "running")])
    again = url.replace("one", "two")  # another password is no other broker
    assert tab("fedbus show ", FEDBUS_BROKER_URL=again) == ["elsewhere-00000000"]
    assert tab(f"fedbus show --broker-url {again} ") == ["elsewhere-00000000"]
    assert json.loads(next((known / "completion").glob("*.json")).read_bytes())
