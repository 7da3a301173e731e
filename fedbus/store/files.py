"""Durable files: write beside, fsync, rename. Errors of the disk become StoreError with what to do."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fedbus.errors import DiskFullError, StoreError

MOST_TOGETHER = 8
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_full(exc: BaseException) -> bool:
    """Whether this is what the system says when a disk or a quota has no room."""
    return isinstance(exc, OSError) and exc.errno in NO_ROOM


@contextmanager
def disk_errors(what: str, path: Path) -> Iterator[None]:
    """Translate OSError into StoreError: what was being done, where, and how to mend it."""
    try:
        yield
    except OSError as exc:
        hint = {
            errno.ENOSPC: "the disk is full: free some space",
            errno.EDQUOT: "the disk quota is used up: free some space",
            errno.EACCES: "permission denied: give this user write access, or choose another folder",
            errno.EROFS: "the file system is read-only: choose another folder",
            errno.ENOTDIR: "a part of the path is a file: choose another folder",
            errno.EEXIST: "a file is in the way: choose another folder",
        }.get(exc.errno or 0, exc.strerror or str(exc))
        raise (DiskFullError if is_full(exc) else StoreError)(f"{what} {path}: {hint}") from exc


def make_folder(path: Path) -> Path:
    """Create `path` and check that this process may write into it; StoreError otherwise."""
    with disk_errors("cannot use folder", path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        try:
            probe.write_bytes(b"fedbus")
        finally:
            probe.unlink(missing_ok=True)
    return path


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_size
            except OSError:
                continue  # gone meanwhile
    return total


def drop_leftovers(path: Path) -> None:
    """Delete what a process killed inside `replace_durably` left in `path`; only for the folder's one owner."""
    with disk_errors("cannot clean folder", path):
        for leftover in path.glob(".*.tmp-*"):
            leftover.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make renames and new names in `path` durable."""
    with opened_folder(path) as fd:
        os.fsync(fd)


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Yield a descriptor of a folder, which can be synced."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def sync_together(fds: Sequence[int]) -> None:
    """Make what was written to these open files and folders durable, all at once: the slowest sets the time."""
    if len(fds) == 1:
        os.fsync(fds[0])
    elif fds:
        with ThreadPoolExecutor(max_workers=min(len(fds), MOST_TOGETHER)) as threads:
            deque(threads.map(os.fsync, fds), maxlen=0)


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def replace_durably(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; afterwards it is synced and takes the place of `path` in one step."""
    with _beside(path) as beside:
        yield beside
        sync_file(beside)
        beside.replace(path)
        sync_folder(path.parent)


@contextmanager
def replace_soon(path: Path) -> Iterator[Path]:
    """The same without waiting for the disk: a power failure may take the file, a kill does not."""
    with _beside(path) as beside:
        yield beside
        beside.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with disk_errors("cannot write", path):
        try:
            yield beside
        finally:
            beside.unlink(missing_ok=True)
