"""One process per state folder: a lock file that the kernel releases whatever becomes of its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from fedbus.errors import FolderInUseError, StoreError
from fedbus.store.files import disk_errors


class StateLock:
    """Held inside `with`; FolderInUseError naming the holder when another process has it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"

    def acquire(self) -> None:
        """Take the lock or raise; `close` gives it back."""
        with disk_errors("cannot lock", self._path):
            self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise FolderInUseError(
                f"state folder {self._path.parent} is in use by process {holder}: stop it, or choose another folder"
            ) from exc
        except OSError as exc:
            self._file.close()
            raise StoreError(
                f"cannot lock {self._path}: {exc.strerror}; choose a folder on a file system that has locks"
            ) from exc
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def holder_of(folder: Path) -> int | None:
    """The process that holds the lock of a state folder; None when nobody does."""
    try:
        with (folder / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdecimal() else None
    except FileNotFoundError:
        pass
    return None
