"""The SQLite file (WAL) of a ledger: opened, brought to this release's schema, read and written in transactions.

Every write is durable when its transaction ends (synchronous=FULL). Any thread may call; calls wait for each other.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedbus.errors import DiskFullError, StoreError
from fedbus.store import ledger_schema as schema

NO_ROOM_BYTES = 1 << 20


class LedgerFile:
    """Raises StoreError when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as exc:
            raise StoreError(self._unusable(exc)) from exc
        try:
            self._prepare(db)
        except sqlite3.Error as exc:
            db.close()
            raise StoreError(self._unusable(exc)) from exc
        except StoreError:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        self._check_schema(found, or_else=0)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        schema.make(db, found)

    def _check_schema(self, found: int, *, or_else: int = schema.SCHEMA_VERSION) -> None:
        if found not in (*schema.READABLE, or_else):
            raise StoreError(
                f"ledger {self._path} has schema {found}, this release reads"
                f" {schema.READABLE[0]} to {schema.READABLE[-1]}: upgrade fedbus"
            )

    def close(self) -> None:
        """Nothing is read or written after this."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside is kept, or nothing of it. StoreError, DiskFullError when it cannot be."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as exc:
                self._rollback()
                raise self._unwritable(exc) from exc
            except BaseException:
                self._rollback()
                raise

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query finds. StoreError when it cannot be asked."""
        with self._lock:
            try:
                return self._db.execute(query, parameters).fetchall()
            except sqlite3.Error as exc:
                raise StoreError(f"cannot read ledger {self._path}: {exc}") from exc

    def give_back_room(self) -> None:
        """Give the room back to the disk when much of the file is empty."""
        with self._lock, suppress(sqlite3.Error):  # no room, say: what is empty is used again anyway
            empty, pages = (
                self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
            if 2 * empty > pages:
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def hide_from_others(self) -> None:
        """Only the owner may read the file from now on."""
        with suppress(OSError):
            for path in self._path.parent.glob(f"{self._path.name}*"):
                path.chmod(0o600)

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _unwritable(self, exc: sqlite3.Error) -> StoreError:
        # SQLite names a full disk only in some of the places where it meets one
        full = exc.sqlite_errorcode == sqlite3.SQLITE_FULL if hasattr(exc, "sqlite_errorcode") else False
        if full or shutil.disk_usage(self._path.parent).free < NO_ROOM_BYTES:
            return DiskFullError(f"cannot write ledger {self._path}: the disk is full ({exc}): free some space")
        return StoreError(f"cannot write ledger {self._path}: {exc}")

    def _unusable(self, exc: sqlite3.Error) -> str:
        return f"cannot open ledger {self._path}: {exc}; is it a fedbus ledger and may this user write it?"
