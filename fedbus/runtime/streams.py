"""Standard output and standard error that may be full, closed or without a reader.

What is printed for people does not decide over the work. Log lines and messages that cannot be written to standard
error are dropped and counted, and the count is written as soon as there is room again. A daemon does not wait for a
reader that stands still, either: beyond PATIENCE_MS lines are dropped. It does wait for a file system that hangs, for
nothing tells before a write to a file whether it will return.

The answer of a command is the work itself: what cannot be written to standard output is an OutputError there, once.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

PATIENCE_MS = 50
"""How long one line of a daemon waits for room, unless lines are being lost already."""
AT_ONCE_BYTES = select.PIPE_BUF
"""So much a pipe takes without waiting once it says that it has room."""
NO_READER = "its reader does not read"

LostWords = Callable[[int, str], str]
"""Of the number of lost lines and the reason, the line that says so, without its end."""


def lost_words(lines: int, why: str) -> str:
    """What is said of lost lines, in words."""
    return f"{lines} {'line was' if lines == 1 else 'lines were'} lost: the log could not be written ({why})"


class LossyFile(io.FileIO):
    """A file whose writes never fail. Each call of `write` is one record, of one or more whole lines."""

    def __init__(self, fd: int, *, patience_ms: int | None) -> None:
        """Write to `fd`, which stays open. `patience_ms` None: wait for its reader as long as it takes."""
        super().__init__(fd, "wb", closefd=False)
        self.patience_ms = patience_ms
        self.words: LostWords = lambda lines, why: f"fedbus: {lost_words(lines, why)}"
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)
        self._lock = threading.RLock()  # a signal handler may log while a line is being written
        self._lost, self._why, self._torn = 0, "", False

    def write(self, data: Any) -> int:
        """Write the record or count it as lost. Returns its size either way."""
        record = bytes(data)
        with self._lock:
            if not (self._say_lost() and self._put(record)):
                self._lost += record.count(b"\n")
        return len(record)

    def _say_lost(self) -> bool:
        """Whether nothing is left to be said of lost lines."""
        if self._lost and self._put(f"{self.words(self._lost, self._why)}\n".encode(errors="backslashreplace")):
            self._lost = 0
        return not self._lost

    def _put(self, record: bytes) -> bool:
        """Whether all of it was written; of a record that was not, the part that came out gets a line end."""
        left = memoryview(b"\n" + record if self._torn else record)
        while left:
            try:
                written = super().write(left[:AT_ONCE_BYTES]) if self._has_room() else None
            except OSError as exc:
                self._why = exc.strerror or str(exc)
                return False
            if written is None:
                self._why = NO_READER
                return False
            left = left[written:]
            self._torn = bool(left)
        return True

    def _has_room(self) -> bool:
        return bool(self._room.poll(0 if self._lost else self.patience_ms))


class AnswerFile(io.FileIO):
    """Standard output of a command: raises OutputError at the first write that fails, swallows all after it.

    BrokenPipeError stays what it is: `| head` has what it wanted, and the libraries that print know it.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._broken = False

    def write(self, data: Any) -> int:
        """As a file does. What is buffered above is tried again at the exit, when nobody is left to be told."""
        if self._broken:
            return len(data)
        try:
            return super().write(data)
        except OSError as exc:
            self._broken = True
            if isinstance(exc, BrokenPipeError):
                raise
            from fedbus.errors import OutputError

            raise OutputError(f"the output could not be written: {exc.strerror}") from exc


def guard_command() -> None:
    """Make the streams of a command such: answers are written or an error, messages are written if they can be."""
    if _ours(sys.stdout, sys.__stdout__):
        raw = AnswerFile(sys.stdout.fileno())
        sys.stdout = _text(sys.stdout, io.BufferedWriter(raw))
    guard_stderr()


def guard_stderr() -> LossyFile | None:
    """Make standard error lossy. Returns its file, or None when somebody else has taken the stream over."""
    if sys.stderr is None:
        # Closed by whoever started us: its number must not go to the next file that is opened, a ledger say.
        while (fd := os.open(os.devnull, os.O_WRONLY)) < 2:
            pass
        sys.stderr = io.TextIOWrapper(LossyFile(fd, patience_ms=None), errors="backslashreplace", write_through=True)
    elif _ours(sys.stderr, sys.__stderr__):
        sys.stderr = _lossy(sys.stderr, patience_ms=None)
    return _lossy_file(sys.stderr)


def guard_daemon() -> None:
    """Make both streams of a daemon lossy, and never wait for who reads them."""
    guard_stderr()
    if sys.stdout is not None and (_ours(sys.stdout, sys.__stdout__) or isinstance(_raw(sys.stdout), AnswerFile)):
        sys.stdout.flush()
        sys.stdout = _lossy(sys.stdout, patience_ms=PATIENCE_MS)
    if file := _lossy_file(sys.stderr):
        file.patience_ms = PATIENCE_MS


def _ours(stream: TextIO, original: TextIO | None) -> bool:
    """Whether the stream is the one that the interpreter has made; pytest and others put their own there."""
    return stream is not None and stream is original


def _lossy(stream: TextIO, *, patience_ms: int | None) -> TextIO:
    return _text(stream, LossyFile(stream.fileno(), patience_ms=patience_ms), write_through=True)


def _text(like: TextIO, binary: Any, *, write_through: bool = False) -> TextIO:
    """A text stream over `binary` with the encoding and the habits of another one."""
    return io.TextIOWrapper(
        binary,
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=bool(like.line_buffering),
        write_through=write_through,
    )


def _lossy_file(stream: TextIO) -> LossyFile | None:
    raw = _raw(stream)
    return raw if isinstance(raw, LossyFile) else None


def _raw(stream: TextIO) -> Any:
    binary = getattr(stream, "buffer", None)
    return getattr(binary, "raw", binary)
