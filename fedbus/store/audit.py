"""An audit log: JSON lines in one file a month, each with the hash of the line before; only ever added to.

    <folder>/2026-11.jsonl   the lines of that month; the chain goes on from file to file
    <folder>/lock            held while lines are written, so that a command may write beside a daemon

Lines are durable when `append` returns, all of a call with one fsync. What a kill, or a full disk, has cut is closed by
the next line, see `audit_line`. Months whose first day is more than `keep_days` ago are deleted; a line says so first,
with the hash from which the chain goes on. The clock may be set back: a line never goes into an earlier file.

A chain tells changes only to whoever has a later hash. The last one, the head, therefore goes with each update to the
aggregator, see `audit_check`.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedbus.errors import StoreError
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import (
    MOST_LINE_BYTES,
    NOTHING,
    Entry,
    Head,
    Line,
    closing,
    hash_of,
    line_of,
    read_line,
)
from fedbus.store.files import disk_errors, sync_folder

FOLDER = "audit"
"""Its name in a state folder."""
LOCK_LIMIT_S = 5.0
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}\.jsonl")
_TAIL_BYTES = 2 * MOST_LINE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """Where a log ends: its newest file with so many bytes, the last whole line, and what was cut after it."""

    file: Path
    size: int
    head: Head
    cut: bytes = b""


class AuditLog:
    """The log in a folder, which is made if need be. Raises StoreError when it cannot be used.

    Any thread may call, one at a time. `clock`: seconds since the epoch.
    """

    def __init__(self, folder: Path, *, keep_days: float = 365.0, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._keep = timedelta(days=keep_days)
        self._clock = clock
        with disk_errors("cannot use audit log", folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._end: _End | None = None
        self._looked_on = 0
        """The day on which it was last looked for what is too old."""
        with self._locked():
            self._close_cut()
            self._delete_old()

    @property
    def head(self) -> Head:
        """That of the newest line."""
        return NOTHING if self._end is None else self._end.head

    def append(self, entries: Sequence[Entry]) -> list[Head]:
        """Add lines, durably; returns the head after each. Raises StoreError, DiskFullError: none of them counts."""
        with self._locked():
            self._look()
            self._close_cut()
            heads = self._write(entries)
            if self._today() != self._looked_on:
                self._delete_old()
        return heads

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.folder / "lock"
        with disk_errors("cannot lock", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, path)
            yield
        finally:
            os.close(fd)

    def _look(self) -> None:
        """See what others have written since."""
        end = self._end
        with disk_errors("cannot read audit log", self.folder):
            files = files_of(self.folder)
            if end is None or not files or files[-1] != end.file or end.file.stat().st_size != end.size:
                self._end = _end_of(files)

    def _close_cut(self) -> None:
        if self._end is None:
            self._look()
        if self._end is not None and self._end.cut:
            self._add(self._end.file, [closing(self._end.cut, at=self._clock())])

    def _write(self, entries: Sequence[Entry]) -> list[Head]:
        if not entries:
            return []
        file = self.folder / f"{datetime.fromtimestamp(self._clock(), UTC):%Y-%m}.jsonl"
        if self._end is None:
            self._add(file, [Entry(kind=Kind.LOG_BEGUN, at=entries[0].at)])
        elif file.name < self._end.file.name:
            file = self._end.file
        return self._add(file, entries)

    def _add(self, file: Path, entries: Sequence[Entry]) -> list[Head]:
        """Write lines at the end of a file, all or nothing."""
        heads, lines, cut = [], [], b""
        head, size = NOTHING, 0
        if self._end is not None:
            head = self._end.head
            size, cut = (self._end.size, self._end.cut) if file == self._end.file else (0, b"")
        for entry in entries:
            line = line_of(entry, head)
            head = Head(sequence=head.sequence + 1, sha256=hash_of(cut + line))
            heads.append(head)
            lines.append(line + b"\n")
            cut = b""
        self._put(file, size, b"".join(lines))
        self._end = _End(file=file, size=size + sum(map(len, lines)), head=head)
        return heads

    def _put(self, file: Path, size: int, data: bytes) -> None:
        new = not file.exists()
        with disk_errors("cannot write audit log", file):
            fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _write_all(fd, data)
                os.fsync(fd)
            except OSError:
                self._end = None  # what is there now is looked at before the next try
                with suppress(OSError):
                    os.ftruncate(fd, size)
                raise
            finally:
                os.close(fd)
            if new:
                sync_folder(self.folder)

    def _today(self) -> int:
        return int(self._clock() // 86_400)

    def _delete_old(self) -> None:
        """Delete months that began more than `keep_days` ago, but never the newest; a line says so before."""
        self._looked_on = self._today()
        files = files_of(self.folder)
        before = datetime.fromtimestamp(self._clock(), UTC) - self._keep
        old = [file for file in files[:-1] if _begins(file) < before]
        if not old:
            return
        first = next(lines_of(files[len(old)]), None)
        if first is None or not isinstance(first[1], Line):
            return  # a log that was damaged is kept as it is
        facts = {"until": first[1].sequence - 1, "sha256": first[1].before, "files": [file.name for file in old]}
        self._write([Entry(kind=Kind.LINES_DELETED, at=self._clock(), facts=facts)])
        with disk_errors("cannot delete", self.folder):
            for file in old:
                file.unlink()
            sync_folder(self.folder)


def files_of(folder: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return sorted(path for path in folder.iterdir() if _MONTH.fullmatch(path.name)) if folder.is_dir() else []


@dataclass(frozen=True, slots=True, kw_only=True)
class NoLine:
    """What stands in a file where a line should; not whole: it has no end, being written or cut by a kill."""

    data: bytes
    whole: bool


def lines_of(file: Path) -> Iterator[tuple[int, Line | NoLine]]:
    """The lines of a file with their numbers. Raises StoreError."""
    with disk_errors("cannot read audit log", file), file.open("rb") as opened:
        number = 0
        while raw := opened.readline(_TAIL_BYTES):
            number += 1
            whole = raw.endswith(b"\n")
            line = read_line(raw.removesuffix(b"\n")) if whole else None
            yield number, NoLine(data=raw.removesuffix(b"\n"), whole=whole) if line is None else line


def newest(folder: Path, kind: Kind) -> Line | None:
    """The newest line of a kind among those of the two newest files; None when there is none."""
    for file in reversed(files_of(folder)[-2:]):
        found = [line for _, line in lines_of(file) if isinstance(line, Line) and line.kind == kind]
        if found:
            return found[-1]
    return None


def _begins(file: Path) -> datetime:
    try:
        return datetime.strptime(file.stem, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)  # no month: never too old


def _end_of(files: Sequence[Path]) -> _End | None:
    """Where the log of these files ends; None when they hold nothing."""
    size, cut = 0, b""
    for file in reversed(files):
        with file.open("rb") as opened:
            length = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, length - _TAIL_BYTES))
            *whole, rest = opened.read().split(b"\n")
        if file == files[-1]:
            size, cut = length, rest
        if not whole and len(rest) < length:
            raise StoreError(f"{file} ends with a line of more than {_TAIL_BYTES} bytes{_AWAY}")
        if whole:
            line = read_line(whole[-1])
            if line is None:
                raise StoreError(f"the last line of {file} is no line of an audit log{_AWAY}")
            return _End(file=files[-1], size=size, head=line.head, cut=cut)
    return _End(file=files[-1], size=size, head=NOTHING, cut=cut) if size else None


_AWAY = (
    ": somebody has written there. `fedbus audit verify` says what is wrong; keep the folder, move it away, and a new"
    " log begins"
)


def _lock(fd: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                raise StoreError(f"{path} is held by another process for {LOCK_LIMIT_S:g} s: is one stopped?") from exc
            time.sleep(0.01)
        except OSError as exc:
            raise StoreError(
                f"cannot lock {path}: {exc.strerror}; choose a folder on a file system that has locks"
            ) from exc


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
