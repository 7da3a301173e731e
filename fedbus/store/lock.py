"""One process per state folder: a lock file that the kernel releases whatever becomes of its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from fedbus.errors import StoreError
from fedbus.store.files import disk_errors


class StateLock:
    """Held inside `with`; StoreError naming the holder when another process has it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"

    def __enter__(self) -> Self:
        with disk_errors("cannot lock", self._path):
            self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise StoreError(
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
