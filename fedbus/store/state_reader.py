"""An aggregator's state folder, read without a trace: after its end, after a kill, or beside it while it works.

No lock is needed, because nothing here creates, changes or deletes a file, and whatever is read stays whole:

    ledger       with a WAL (the aggregator works, or was killed): opened with `mode=ro`. Readers and the writer do not
                 wait for each other, and a query ends at once, so that the WAL can still be folded back. Only SQLite's
                 own -shm, which is there already, learns of the reader.
                 without (it ended cleanly): opened as immutable, for else SQLite would leave a WAL behind; when an
                 aggregator starts meanwhile, the query is asked again of the file as it then is
    checkpoints  come and go as whole files, by a rename
    bodies       are complete before they are decided, and not written to any more
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedbus.errors import StoreError
from fedbus.store.checkpoints import Checkpoint, read_head
from fedbus.store.ledger import Ledger
from fedbus.store.ledger_file import LedgerFile
from fedbus.store.ledger_schema import read_as_newest
from fedbus.store.spool import Bodies


class _ReadOnlyFile(LedgerFile):
    def __init__(self, path: Path) -> None:
        self._wal = path.with_name(f"{path.name}-wal")
        super().__init__(path)
        try:
            self._check_schema(self.rows("PRAGMA user_version")[0][0])
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> sqlite3.Connection:
        self._opened_as = self._looks()
        mode = "mode=ro" if self._opened_as is None else "mode=ro&immutable=1"
        try:
            db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise StoreError(f"cannot open ledger {self._path}: {exc}; may this user read it?") from exc
        try:
            read_as_newest(db)
        except sqlite3.Error as exc:
            db.close()
            raise StoreError(f"cannot read ledger {self._path}: {exc}") from exc
        return db

    def _looks(self) -> tuple[int, int] | None:
        """What changes when somebody writes to a ledger without a WAL; None: it has one, which readers may rely on."""
        if self._wal.exists():
            return None
        try:
            found = self._path.stat()
        except OSError as exc:
            raise StoreError(f"no ledger {self._path}: expected the state folder of an aggregator") from exc
        return found.st_size, found.st_mtime_ns

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        while True:
            try:
                rows = super().rows(query, parameters)
            except StoreError:
                if self._still():
                    raise
            else:
                if self._still():
                    return rows
            self._db.close()
            self._db = self._open()

    def _still(self) -> bool:
        return self._opened_as is None or self._opened_as == self._looks()


class LedgerReader(Ledger):
    """A ledger for reading only: what would write raises StoreError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, open_file=_ReadOnlyFile)


class StateReader:
    """The ledger, bodies and checkpoints of a state folder. Use as a context manager; StoreError when it is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bodies = Bodies(folder / "spool")
        self.ledger = LedgerReader(folder / "ledger.sqlite3")

    def __enter__(self) -> StateReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.ledger.__exit__(*exc)

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """The job's checkpoints, oldest first, also that in the archive. StoreError names one that is damaged."""
        found: dict[int, Checkpoint] = {}
        for folder in (self._folder / "jobs" / job / "checkpoints", self.bodies.archive(job)):
            for path in folder.glob("v*.safetensors"):
                try:
                    head = read_head(path)
                except StoreError:
                    if not path.exists():
                        continue  # an aggregator has just deleted it
                    raise
                found[head.version] = head
        return [found[version] for version in sorted(found)]
