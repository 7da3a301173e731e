"""`python -m fedbus.training.guardian SOCKET COMMAND...`: a trainer's parent, so that nothing of it is left behind.

    site daemon ── lifeline (stdin) ──▶ guardian ──▶ trainer ──▶ whatever a task starts, in sessions of its own too
                ◀── lines (stdout) ───            ◀── stdout and stderr of all of them

The guardian adopts what loses its parent below it. When the trainer has ended, the lifeline is closed (by the daemon,
or by the kernel when the daemon was killed) or SIGTERM comes, it kills all that is left, and ends as the trainer ended.
It reads the output without pause, so that no task waits for it, and passes on what `output` lets through.
SOCKET is the number of the trainer's socket, which only the trainer keeps open.
Without torch, on Linux; where the kernel knows no adoption, the trainer's own session is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedbus.training.output import Output

PR_SET_CHILD_SUBREAPER = 36
LIFELINE, LINES = 0, 1
PIECE_BYTES = 1 << 18
KILL_LIMIT_S = 5.0
PAUSE_S = 0.005


class Guardian:
    """Owns the trainer's process and the pipe with its output."""

    def __init__(self, socket: int, command: Sequence[str], wake: int) -> None:
        self._wake = wake
        self._printed, write_end = os.pipe()
        os.set_blocking(self._printed, False)
        self._output = Output(time.monotonic())
        self._trainer = _spawn(command, write_end)
        self._status: int | None = None
        os.close(write_end)
        os.close(socket)

    def watch(self) -> None:
        """Return when the trainer has ended or is to end."""
        poll = select.poll()
        for number in (LIFELINE, self._wake, self._printed):
            poll.register(number, select.POLLIN | select.POLLHUP)
        while self._status is None:
            ready = {number for number, _ in poll.poll(self._patience_ms())}
            if LIFELINE in ready and not os.read(LIFELINE, 1):
                return
            if self._wake in ready and signal.SIGTERM in os.read(self._wake, 512):
                return
            if self._printed in ready and not self._pass_on():
                poll.unregister(self._printed)  # closed by the trainer, which may live on
            self._write(self._output.tick(time.monotonic()))
            self._reap()

    def end_all(self) -> int:
        """Kill the trainer and all that is below it; return how the trainer ended, as `waitpid` says it."""
        deadline = time.monotonic() + KILL_LIMIT_S
        if self._status is None:  # once it was waited for, its number may be somebody else's
            os.killpg(self._trainer, signal.SIGKILL)
        while self._reap() and time.monotonic() < deadline:  # one that waits for a dead disk dies when the disk answers
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._pass_on()
            time.sleep(PAUSE_S)
        self._pass_on()
        self._write(self._output.finish(time.monotonic()))
        return signal.SIGKILL if self._status is None else self._status

    def _patience_ms(self) -> int | None:
        say_at = self._output.next_s
        return None if say_at is None else max(0, round((say_at - time.monotonic()) * 1000)) + 1

    def _reap(self) -> bool:
        """Wait for every child that has ended; False when there is none left."""
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if child == 0:
                return True
            if child == self._trainer:
                self._status = status

    def _pass_on(self) -> bool:
        """Read what is there; False at the end of the output."""
        try:
            data = os.read(self._printed, PIECE_BYTES)
        except BlockingIOError:
            return True
        self._write(self._output.feed(data, time.monotonic()))
        return bool(data)

    def _write(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            try:
                os.write(LINES, line)  # shorter than PIPE_BUF: whole or not at all
            except BlockingIOError:
                self._output.lost(line, time.monotonic())
            except BrokenPipeError:
                return


def main(arguments: Sequence[str]) -> int:
    """Guard the process of the command until it has ended; ends as it did."""
    _adopt()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wake, woken = os.pipe()
    for end in (wake, woken, LINES):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    socket, *command = arguments
    guardian = Guardian(int(socket), command, wake)
    guardian.watch()
    return _end_like(guardian.end_all())


def _spawn(command: Sequence[str], output: int) -> int:
    """Start the trainer in a session of its own: what it sends to its group does not reach the guardian."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    default = [signal.SIGHUP, signal.SIGPIPE, signal.SIGINT]
    return os.posix_spawn(command[0], list(command), os.environ, file_actions=files, setsid=True, setsigdef=default)


def _adopt() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> list[int]:
    """Our own and the adopted ones; nobody else waits for them, so that no number is another process's by now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def _end_like(status: int) -> int:
    """End by the signal that ended the trainer, or return its exit code."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
