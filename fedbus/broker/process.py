"""Processes and ports of the private node: start detached, recognise, end; nothing here knows RabbitMQ.

A process is named by its pid and its start time, because a pid alone may belong to somebody else after a crash.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fedbus.errors import NodeError

POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process for ever: `started` is the kernel's start time in clock ticks after boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The live process with this pid, None when there is none.

        A zombie counts as none, once its last thread is gone: until then a process that is killed holds its ports.
        """
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return None
        threads = int(fields[17])
        return None if fields[0] in "ZX" and threads <= 1 else cls(pid=pid, started=int(fields[19]))

    @property
    def alive(self) -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # reaps it when it was our own child
        return ProcessId.of(self.pid) == self

    def wait(self, timeout: timedelta) -> bool:
        """True as soon as the process has ended, False when it has not after `timeout`."""
        deadline = time.monotonic() + timeout.total_seconds()
        while self.alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting."""
        self.send(signal.SIGTERM)

    def end(self, grace: timedelta) -> None:
        """SIGTERM, then SIGKILL after `grace` (at once when it is zero); returns when the process is gone."""
        if grace:
            self.send(signal.SIGTERM)
        if not grace or not self.wait(grace):
            self.send(signal.SIGKILL)
            if not self.wait(timedelta(seconds=10)):
                raise NodeError(f"process {self.pid} does not end even by SIGKILL; is its disk hanging?")

    def send(self, number: signal.Signals) -> None:
        """A signal, to this process only: nothing happens when it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """No signal handler of Python runs inside, so that what `spawn` starts cannot be lost before it is kept.

    A signal that comes meanwhile is raised at the end. To block them for this thread would not do: the kernel then
    gives them to another one, and Python runs the handler here all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in held:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for missed in came:
            signal.raise_signal(missed)


def spawn(
    command: Sequence[str], *, env: Mapping[str, str], output: Path, die_with_parent: bool, folder: Path | None = None
) -> ProcessId:
    """Start `command` in a session of its own, output appended to a file; it lives on after us. folder: where it runs.

    With `die_with_parent` the kernel sends it SIGKILL when we end, in whatever way. The kernel means the *thread* that
    spawned it, so only the main thread may ask for it. NodeError when the program cannot be started. Call it, and keep
    what it returns, with `signals_held` where a signal handler may raise.
    """
    if die_with_parent:
        if threading.current_thread() is not threading.main_thread():
            raise NodeError("die_with_parent works from the main thread only: the process would die with this thread")
        command = ["setpriv", "--pdeathsig", "KILL", *command]  # an exec, not a fork: pid and pdeathsig stay
    if shutil.which(command[0], path=env.get("PATH")) is None:
        raise NodeError(f"the program {command[0]!r} is not on PATH {env.get('PATH')!r}; install it")
    if folder is not None:
        command = ["env", f"--chdir={folder.absolute()}", *command]
    program = shutil.which(command[0], path=env.get("PATH")) or command[0]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()),
    ]
    pid = os.posix_spawn(program, list(command), dict(env), file_actions=files, setsid=True)
    found = ProcessId.of(pid)
    if found is None:
        raise NodeError(f"{command[0]} ended at once; see {output}")
    return found


def _inherited() -> list[int]:
    """What would live on in a process that outlives us: a lock or a pipe that whoever started us waits for."""
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    found = []
    for number in numbers:
        with contextlib.suppress(OSError):  # that of the listing itself is closed by now
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(*, in_a_row: int = 1) -> int:
    """The first of so many free ports below the range from which the kernel gives ports to outgoing connections."""
    for _ in range(1000):
        port = random.randint(20_000, 32_000)
        if all(map(port_is_free, range(port, port + in_a_row))):
            return port
    raise NodeError("no free port between 20000 and 32000 on 127.0.0.1")


def answers(port: int, send: bytes = b"", first: bytes = b"") -> bool:
    """True when 127.0.0.1:port accepts a connection and, after `send`, answers with bytes that begin with `first`."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(send)
            return not first or connection.recv(len(first)) == first
    except OSError:
        return False
