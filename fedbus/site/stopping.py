"""Ends a site's daemon whatever the aggregator says, and keeps it ended: `fedbus site stop` and `fedbus site resume`.

marker    a file in the state folder, written first: a daemon that finds it does not start (exit code 2, which
          systemd does not start again); `resume` takes it away
--now     SIGUSR2: in the daemon's own signal handler every TCP connection is set to be reset, so that nothing that
          is still in the kernel's buffers leaves, its children's children are killed, and it exits. What is still
          there after HANDLER_LIMIT (a daemon that hangs) is killed from outside
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType

from fedbus.broker.process import ProcessId
from fedbus.errors import FedbusError, SettingsError, StoreError
from fedbus.store.audit import FOLDER, AuditLog
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import Entry
from fedbus.store.files import replace_durably
from fedbus.store.lock import holder_of

MARKER = "stopped"
EXIT_STOPPED = 2
HANDLER_LIMIT = timedelta(milliseconds=400)
KILL_LIMIT = timedelta(milliseconds=500)
POLITE_LIMIT = timedelta(seconds=60)
RESET = struct.pack("ii", 1, 0)
GUARDIAN = b"fedbus.training.guardian"


def check_not_stopped(state: Path, site: str) -> None:
    """Raise SettingsError when somebody has stopped this site for good."""
    marker = state / MARKER
    if marker.exists():
        with suppress(OSError):
            since = time.strftime("%F %T %z", time.localtime(marker.stat().st_mtime))
            raise SettingsError(
                f"site {site} was stopped on {since} and stays out: `fedbus site resume --name {site}` lets it start"
            )
        raise SettingsError(f"site {site} was stopped, {marker} says so")


# -------------------------------------------------------------- in the daemon


def hear_the_plug() -> None:
    """From now on SIGUSR2 pulls the plug; a handler of Python, which an event loop that is busy does not hold up."""
    signal.signal(signal.SIGUSR2, _pull)


def _pull(number: int, frame: FrameType | None) -> None:
    """No more packet, no more trainer, no more process: in this order, without a word to anybody."""
    for fd in _numbers(Path("/proc/self/fd")):
        _reset_on_close(fd)
    own = ProcessId.of(os.getpid())
    if own is not None:
        for process in _below(own):
            if not _is_guardian(process.pid):  # these end when we do, after whatever is below them
                process.send(signal.SIGKILL)
    os._exit(EXIT_STOPPED)


def _reset_on_close(fd: int) -> None:
    with suppress(OSError):
        sock = socket.socket(fileno=os.dup(fd))
        with sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _is_guardian(pid: int) -> bool:
    with suppress(OSError):
        return GUARDIAN in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


# -------------------------------------------------------------- from outside


def stop(state: Path, site: str, *, now: bool) -> str:
    """Stop the daemon that works in this folder and keep it stopped; what was done, in words. Raises FedbusError."""
    unwritten = _mark(state, site, now=now)
    pid = holder_of(state)
    daemon = None if pid is None else ProcessId.of(pid)
    if daemon is None:
        done = f"no daemon of site {site} runs in {state}"
    elif now:
        done = _stopped_now(daemon, site)
    else:
        daemon.ask_to_end()
        if not daemon.wait(POLITE_LIMIT):
            raise FedbusError(f"site {site} (process {daemon.pid}) has not ended yet: `fedbus site stop --now` ends it")
        done = f"site {site} (process {daemon.pid}) has ended"
    _audit(state, now=now, ran=daemon is not None)
    if unwritten:
        raise StoreError(f"{done}; it was not marked as stopped, so that it may be started again: {unwritten}")
    return f"{done}; it stays out until `fedbus site resume --name {site}`"


def resume(state: Path, site: str) -> str:
    """Let the site's daemon start again; in words. Raises StoreError."""
    try:
        (state / MARKER).unlink()
    except FileNotFoundError:
        return f"site {site} was not stopped"
    except OSError as exc:
        raise StoreError(f"cannot delete {state / MARKER}: {exc.strerror}") from exc
    return f"site {site} may start again: start its daemon (`systemctl start fedbus-site`, or `fedbus site`)"


def _mark(state: Path, site: str, *, now: bool) -> str:
    """Why the marker could not be written: the daemon is stopped all the same. SettingsError: no such folder."""
    if not state.is_dir():
        raise SettingsError(f"no site works in {state}: give its --name, or its --state-dir")
    try:
        with replace_durably(state / MARKER) as beside:
            beside.write_text(f"stopped by fedbus site stop{' --now' if now else ''}\n")
    except StoreError as exc:
        return str(exc)
    return ""


def _stopped_now(daemon: ProcessId, site: str) -> str:
    below = list(_below(daemon))
    daemon.send(signal.SIGUSR2)
    by_itself = daemon.wait(HANDLER_LIMIT)
    if not by_itself:
        below += _below(daemon)
    for process in (daemon, *reversed(below)):
        process.send(signal.SIGKILL)
    deadline = time.monotonic() + KILL_LIMIT.total_seconds()
    left = [p for p in (daemon, *below) if not p.wait(timedelta(seconds=max(0.0, deadline - time.monotonic())))]
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise FedbusError(f"site {site}: process {pids} was killed and has not ended: is a disk hanging?")
    how = "" if by_itself else "; it did not answer and was killed: what the kernel still held may have left"
    return f"site {site} (process {daemon.pid}) and {len(below)} processes below it are gone{how}"


def _audit(state: Path, *, now: bool, ran: bool) -> None:
    """Afterwards: nothing holds up the plug. A log that cannot be written is the daemon's to tell of."""
    facts = {"now": now, "ran": ran, "uid": os.getuid()}
    with suppress(StoreError):
        AuditLog(state / FOLDER).append([Entry(kind=Kind.STOP_NOW, at=time.time(), facts=facts)])


def _below(process: ProcessId) -> Iterator[ProcessId]:
    """Every process below one, the deepest first: nobody is adopted by somebody else while they are killed."""
    parents: dict[int, list[int]] = {}
    for pid in _numbers(Path("/proc")):
        with suppress(OSError, ValueError, IndexError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(pid)
    found, left = [], [process.pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return (one for pid in reversed(found) if (one := ProcessId.of(pid)) is not None)


def _numbers(folder: Path) -> list[int]:
    return [int(name) for name in os.listdir(folder) if name.isdecimal()]
