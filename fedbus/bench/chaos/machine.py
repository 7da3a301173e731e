"""The machine of a daemon, and what can be wrong with it: its clock, its storage, the disk of its log.

`python -m fedbus.bench.chaos.machine FILE FOLDER MODULE ...` runs a daemon. FILE holds the troubles of the moment,
shared memory that the stage writes and the process reads; FOLDER is the storage that hangs.

clock      `time.time` is so many seconds ahead, from one moment to the next: a step, as an operator or NTP makes it
storage    whatever opens, renames, deletes, lists or syncs a file in FOLDER, and every SQL statement, does not return
           before the storage is back; it is the thread that asked which waits, as with a network file system
log        standard output and error are on a full disk: writing fails with ENOSPC

Log lines keep the true time (structlog asks `datetime`), so that what processes wrote can be compared.
"""

from __future__ import annotations

import mmap
import os
import runpy
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LOOK_S = 0.05
_CLOCK, _FLAG = struct.Struct("<d"), struct.Struct("<?")
_CLOCK_AT, _STORAGE_AT, _LOG_AT, _ASKED_AT, _SIZE = 0, 8, 9, 10, 16
_ON_FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.truncate")


class Machine:
    """Troubles in a file that other processes see; a new file when there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "a+b") as file:
            file.truncate(_SIZE)
            self._shared = mmap.mmap(file.fileno(), _SIZE)

    @property
    def clock_ahead_s(self) -> float:
        """By how much its clock is ahead of the true time."""
        return float(_CLOCK.unpack_from(self._shared, _CLOCK_AT)[0])

    @clock_ahead_s.setter
    def clock_ahead_s(self, seconds: float) -> None:
        _CLOCK.pack_into(self._shared, _CLOCK_AT, seconds)

    @property
    def storage_hangs(self) -> bool:
        """Whether what is asked of the storage does not return."""
        return bool(_FLAG.unpack_from(self._shared, _STORAGE_AT)[0])

    @storage_hangs.setter
    def storage_hangs(self, hangs: bool) -> None:
        _FLAG.pack_into(self._shared, _ASKED_AT, False)
        _FLAG.pack_into(self._shared, _STORAGE_AT, hangs)

    @property
    def asked_in_vain(self) -> bool:
        """Whether anything was asked of the storage while it hangs."""
        return bool(_FLAG.unpack_from(self._shared, _ASKED_AT)[0])

    @property
    def log_is_full(self) -> bool:
        """Whether nothing can be written to the log."""
        return bool(_FLAG.unpack_from(self._shared, _LOG_AT)[0])

    @log_is_full.setter
    def log_is_full(self, full: bool) -> None:
        _FLAG.pack_into(self._shared, _LOG_AT, full)

    def wait_for_storage(self) -> None:
        """Return when the storage answers."""
        while self.storage_hangs:
            _FLAG.pack_into(self._shared, _ASKED_AT, True)
            _sleep(LOOK_S)


_true_time, _sleep = time.time, time.sleep


def inhabit(machine: Machine, folder: Path) -> None:
    """Make this process one of that machine, whose storage is `folder`."""
    time.time = lambda: _true_time() + machine.clock_ahead_s
    _hang_with(machine, str(folder))
    threading.Thread(target=_fill_log, args=(machine,), name="log disk", daemon=True).start()


def _hang_with(machine: Machine, folder: str) -> None:
    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _ON_FILES and isinstance(args[0], str | os.PathLike):
            path = os.fspath(args[0])
            if path == folder or path.startswith(f"{folder}/"):
                machine.wait_for_storage()

    sys.addaudithook(hook)
    for name in ("fsync", "fdatasync"):
        setattr(os, name, _waiting(machine, getattr(os, name)))

    class Connection(sqlite3.Connection):
        execute = _waiting(machine, sqlite3.Connection.execute)
        executemany = _waiting(machine, sqlite3.Connection.executemany)
        executescript = _waiting(machine, sqlite3.Connection.executescript)

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]  # no overloads


def _waiting(machine: Machine, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        machine.wait_for_storage()
        return function(*args)

    return call


def _fill_log(machine: Machine) -> None:
    streams = (1, 2)
    logs = [os.dup(fd) for fd in streams]
    full = os.open("/dev/full", os.O_WRONLY)
    was_full = False
    while True:
        if machine.log_is_full != was_full:
            was_full = not was_full
            for fd, log in zip(streams, logs, strict=True):
                os.dup2(full if was_full else log, fd)
        _sleep(LOOK_S)


if __name__ == "__main__":
    _, _file, _folder, _module, *_arguments = sys.argv
    inhabit(Machine(Path(_file)), Path(_folder))
    sys.argv[1:] = _arguments
    runpy.run_module(_module, run_name="__main__", alter_sys=True)
