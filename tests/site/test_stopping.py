"""The plug of a site's daemon: no byte after it, nobody left below it, and it stays out."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedbus.broker.process import ProcessId
from fedbus.errors import SettingsError, StoreError
from fedbus.site.stopping import check_not_stopped, resume, stop
from fedbus.store.lock import StateLock

DAEMON = """
import os, signal, socket, subprocess, sys, time
from pathlib import Path
from fedbus.site.stopping import hear_the_plug
from fedbus.store.lock import StateLock
lock = StateLock(Path(sys.argv[2]))
lock.acquire()
if sys.argv[3] == "hears":
    hear_the_plug()
else:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
below = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
child = subprocess.Popen([sys.executable, "-c", below], stdout=subprocess.PIPE, text=True, start_new_session=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
while True:
    line.sendall(b"x" * (1 << 20))
"""


def started(folder: Path, how: str) -> tuple[subprocess.Popen[str], socket.socket, list[ProcessId]]:
    """A daemon that sends for ever to us, who do not read, and with it all its processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", DAEMON, str(server.getsockname()[1]), str(folder), how]
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line, _ = server.accept()
    assert daemon.stdout is not None
    pids = [daemon.pid, *map(int, daemon.stdout.readline().split())]
    return daemon, line, [one for pid in pids if (one := ProcessId.of(pid)) is not None]


def read_to_the_end(line: socket.socket) -> None:
    while line.recv(1 << 20):
        pass


def test_when_the_plug_is_pulled_nothing_leaves_and_nobody_is_left(tmp_path: Path) -> None:
    daemon, line, processes = started(tmp_path, "hears")
    with line, daemon:
        assert len(processes) == 3

        said = stop(tmp_path, "mercy", now=True)

        # then what was still in the kernel's buffers is thrown away: the line is reset, not closed
        assert [one for one in processes if one.alive] == []
        with pytest.raises(ConnectionResetError):
            read_to_the_end(line)
    assert "and 2 processes below it are gone; it stays out" in said
    # and it does not start again before somebody says so
    with pytest.raises(SettingsError, match="fedbus site resume --name mercy"):
        check_not_stopped(tmp_path, "mercy")
    resume(tmp_path, "mercy")
    check_not_stopped(tmp_path, "mercy")


def test_a_daemon_that_hangs_is_killed(tmp_path: Path) -> None:
    daemon, line, processes = started(tmp_path, "hangs")
    with line, daemon:
        said = stop(tmp_path, "mercy", now=True)

        assert [one for one in processes if one.alive] == []
    assert "did not answer and was killed" in said


def test_a_site_whose_daemon_does_not_run_stays_out_too(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        pass  # it ran once

    assert stop(tmp_path, "mercy", now=True).startswith(f"no daemon of site mercy runs in {tmp_path}")

    with pytest.raises(SettingsError):
        check_not_stopped(tmp_path, "mercy")


def test_a_folder_that_no_site_works_in_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no site works in"):
        stop(tmp_path / "none", "mercy", now=True)


def test_a_marker_that_cannot_be_written_is_said_and_the_daemon_is_gone(tmp_path: Path) -> None:
    daemon, line, processes = started(tmp_path, "hears")
    (tmp_path / "stopped").mkdir()
    with line, daemon:
        with pytest.raises(StoreError, match="may be started again"):
            stop(tmp_path, "mercy", now=True)
        assert [one for one in processes if one.alive] == []
