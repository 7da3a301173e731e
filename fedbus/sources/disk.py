"""Reading somebody else's folder: bounded, inside it, and never half of a file that is being written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from fedbus.errors import SourceError
from fedbus.sources.source import PIECE_BYTES


def inside(folder: Path, *parts: str) -> Path:
    """A path below `folder`; SourceError when these parts lead out of it, by name or by a link."""
    path = folder.joinpath(*parts)
    if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
        raise SourceError(f"a study is called {parts[-1][:60]!r}, which is no name of a file", kind="bad-name")
    try:
        real = path.resolve()
    except (OSError, RuntimeError, UnicodeEncodeError) as exc:
        raise SourceError(f"{path}: a link that leads nowhere, or no name", kind="bad-name") from exc
    if not real.is_relative_to(folder.resolve()):
        raise SourceError(f"{path} is a link out of {folder}", kind="bad-name")
    return path


def mark_of(path: Path) -> str:
    """What changes with every write of a file, as far as its stat shows."""
    with _opened(path) as file:
        return _mark(os.fstat(file.fileno()))


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """A small file; SourceError when it is not there or larger."""
    with _opened(path) as file:
        body = file.read(most_bytes + 1)
    if len(body) > most_bytes:
        raise SourceError(f"{path} has more than {most_bytes} bytes", kind="too-large")
    return body


def copy(path: Path, to: Path, *, most_bytes: int) -> None:
    """Copy a file that nobody writes meanwhile; SourceError when somebody does: it is whole at the next pass."""
    size = 0
    with _opened(path) as file, to.open("wb") as out:
        before = _mark(os.fstat(file.fileno()))
        while piece := file.read(PIECE_BYTES):
            size += len(piece)
            if size > most_bytes:
                raise SourceError(f"{path} has more than {most_bytes} bytes", kind="too-large")
            out.write(piece)
        if _mark(os.fstat(file.fileno())) != before:
            raise SourceError(f"{path} is being written", kind="being-written")


def _opened(path: Path) -> BinaryIO:
    try:
        # a pipe of that name would block for ever
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        what = exc.strerror if isinstance(exc, OSError) else "no name of a file"
        kind = "no-file" if isinstance(exc, FileNotFoundError) else "unreadable"
        raise SourceError(f"{path}: {what}", kind=kind) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceError(f"{path} is no file", kind="unreadable")
    return os.fdopen(fd, "rb")


def _mark(found: os.stat_result) -> str:
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
