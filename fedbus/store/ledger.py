"""The aggregator's ledger: one SQLite file (WAL) that says which jobs, updates and facts there were.

What lives here: rows, and the transactions that keep them true. What may not: rules (see `fedbus.core`), tensors.

    jobs      one row a job: spec, state, layout of its params
    updates   one row an update; `update_id` is the primary key, so that a second arrival changes nothing
    chunks    where each chunk of an update lies in its spool file
    facts     what was decided, in order: folded, refused, committed. State = newest checkpoint + the facts after it
    versions  which versions were published to the model log and confirmed
    incidents what went wrong and what came of it, in words for people
    model_logs the name of each job's stream, a secret of those that take part in it

Every write is durable when the call returns (synchronous=FULL). Any thread may call; calls wait for each other.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedbus.errors import DiskFullError, StoreError

SCHEMA_VERSION = 1
NO_ROOM_BYTES = 1 << 20
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
  job TEXT PRIMARY KEY, spec TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', layout TEXT,
  message_id TEXT UNIQUE, submitted_by TEXT NOT NULL, submitted_at REAL NOT NULL, started_at REAL, ended_at REAL,
  result TEXT);
CREATE TABLE IF NOT EXISTS updates (
  update_id TEXT PRIMARY KEY, job TEXT NOT NULL, site TEXT NOT NULL, manifest TEXT, state TEXT NOT NULL,
  received_at REAL NOT NULL, receipt TEXT);
CREATE INDEX IF NOT EXISTS updates_by_job ON updates (job, state);
CREATE TABLE IF NOT EXISTS chunks (
  update_id TEXT NOT NULL, idx INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
  PRIMARY KEY (update_id, idx)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS facts_by_job ON facts (job, seq);
CREATE TABLE IF NOT EXISTS versions (
  job TEXT NOT NULL, version INTEGER NOT NULL, published_at REAL NOT NULL, PRIMARY KEY (job, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS incidents (job TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS incidents_by_job ON incidents (job);
CREATE TABLE IF NOT EXISTS model_logs (job TEXT PRIMARY KEY, stream TEXT NOT NULL) WITHOUT ROWID;
"""

RECEIVING, SPOOLED, DECIDED = "receiving", "spooled", "decided"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as the ledger knows it; times are seconds since the epoch."""

    job: str
    spec: Mapping[str, Any]
    state: str
    reason: str
    layout: Mapping[str, Any] | None
    submitted_by: str
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """A chunk that was appended to its update's spool file."""

    update_id: str
    job: str
    site: str
    index: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One decision, as it was recorded; `seq` orders all facts of a ledger."""

    seq: int
    kind: str
    body: Mapping[str, Any]
    at: float


class Ledger:
    """Use as a context manager. Raises StoreError when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as exc:
            raise StoreError(_unusable(path, exc)) from exc
        try:
            self._prepare()
        except sqlite3.Error as exc:
            self._db.close()
            raise StoreError(_unusable(path, exc)) from exc
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._check_schema(self._db.execute("PRAGMA user_version").fetchone()[0])
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_TABLES)
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _check_schema(self, found: int) -> None:
        if found not in (0, SCHEMA_VERSION):
            raise StoreError(
                f"ledger {self._path} has schema {found}, this release reads {SCHEMA_VERSION}: upgrade fedbus"
            )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
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

    def _unwritable(self, exc: sqlite3.Error) -> StoreError:
        # SQLite names a full disk only in some of the places where it meets one
        full = exc.sqlite_errorcode == sqlite3.SQLITE_FULL if hasattr(exc, "sqlite_errorcode") else False
        if full or shutil.disk_usage(self._path.parent).free < NO_ROOM_BYTES:
            return DiskFullError(f"cannot write ledger {self._path}: the disk is full ({exc}): free some space")
        return StoreError(f"cannot write ledger {self._path}: {exc}")

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, parameters).fetchall()
            except sqlite3.Error as exc:
                raise StoreError(f"cannot read ledger {self._path}: {exc}") from exc

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    # jobs

    def add_job(
        self, job: str, spec: Mapping[str, Any], *, message_id: str, submitted_by: str, state: str, at: float
    ) -> str:
        """Record a job and return its id; a second submit with the same message id returns the first one's.

        So does another message id that makes the same job id: the caller compares the specs.
        """
        with self._transaction() as db:
            row = db.execute("SELECT job FROM jobs WHERE message_id = ? OR job = ?", (message_id, job)).fetchone()
            if row:
                return str(row[0])
            db.execute(
                "INSERT INTO jobs (job, spec, state, message_id, submitted_by, submitted_at) VALUES (?,?,?,?,?,?)",
                (job, json.dumps(spec), state, message_id, submitted_by, at),
            )
        return job

    def set_job(self, job: str, **columns: object) -> None:
        """Change columns of a job; mappings are stored as JSON."""
        allowed = {"state", "reason", "layout", "started_at", "ended_at", "result"}
        if not columns.keys() <= allowed:
            raise ValueError(f"columns must be of {sorted(allowed)}, got {sorted(columns)}")
        values = [json.dumps(v) if isinstance(v, Mapping) else v for v in columns.values()]
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._transaction() as db:
            db.execute(f"UPDATE jobs SET {assignments} WHERE job = ?", (*values, job))  # noqa: S608 names are checked above

    def jobs(self) -> list[JobRow]:
        """All jobs, oldest first."""
        rows = self._rows(
            "SELECT job, spec, state, reason, layout, submitted_by, submitted_at, started_at, ended_at, result"
            " FROM jobs ORDER BY submitted_at, rowid"
        )
        return [
            JobRow(
                job=r[0],
                spec=json.loads(r[1]),
                state=r[2],
                reason=r[3],
                layout=json.loads(r[4]) if r[4] else None,
                submitted_by=r[5],
                submitted_at=r[6],
                started_at=r[7],
                ended_at=r[8],
                result=json.loads(r[9]) if r[9] else None,
            )
            for r in rows
        ]

    # updates and their chunks

    def record_arrivals(
        self, chunks: Sequence[ChunkRow], manifests: Sequence[tuple[str, str, str, str]], *, at: float
    ) -> None:
        """Record chunks and manifests `(update_id, job, site, manifest JSON)` whose bytes are already synced."""
        with self._transaction() as db:
            insert = "INSERT OR IGNORE INTO updates (update_id, job, site, state, received_at) VALUES (?,?,?,?,?)"
            db.executemany(insert, [(c.update_id, c.job, c.site, RECEIVING, at) for c in chunks])
            db.executemany(
                "INSERT OR IGNORE INTO chunks (update_id, idx, offset, length) VALUES (?,?,?,?)",
                [(c.update_id, c.index, c.offset, c.length) for c in chunks],
            )
            for update_id, job, site, manifest in manifests:
                db.execute(insert, (update_id, job, site, RECEIVING, at))
                db.execute(
                    "UPDATE updates SET manifest = ? WHERE update_id = ? AND manifest IS NULL", (manifest, update_id)
                )

    def mark_spooled(self, update_ids: Sequence[str], *, at: float) -> None:
        """These updates are complete: manifest and every chunk are on disk."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE updates SET state = ?, received_at = ? WHERE update_id = ? AND state = ?",
                [(SPOOLED, at, u, RECEIVING) for u in update_ids],
            )

    def update_states(self, job: str) -> dict[str, str]:
        """State of every update of a job: receiving, spooled or decided."""
        rows = self._rows("SELECT update_id, state FROM updates WHERE job = ?", (job,))
        return {str(u): str(s) for u, s in rows}

    def manifests(self, job: str, state: str) -> list[str]:
        """Manifests (JSON) of a job's updates in `state`, in order of arrival; updates without one are left out."""
        rows = self._rows(
            "SELECT manifest FROM updates WHERE job = ? AND state = ? AND manifest IS NOT NULL"
            " ORDER BY received_at, rowid",
            (job, state),
        )
        return [str(r[0]) for r in rows]

    def chunks(self, update_id: str) -> list[tuple[int, int, int]]:
        """(index, offset, length) of an update's chunks, by index."""
        rows = self._rows("SELECT idx, offset, length FROM chunks WHERE update_id = ? ORDER BY idx", (update_id,))
        return [(int(i), int(o), int(n)) for i, o, n in rows]

    def receipt(self, update_id: str) -> Mapping[str, Any] | None:
        """The receipt of an update that was decided; None before that."""
        rows = self._rows("SELECT receipt FROM updates WHERE update_id = ? AND receipt IS NOT NULL", (update_id,))
        return json.loads(rows[0][0]) if rows else None

    def receipts(self, job: str) -> dict[str, Mapping[str, Any]]:
        """The receipts of all updates of a job that were decided, by update id."""
        rows = self._rows("SELECT update_id, receipt FROM updates WHERE job = ? AND receipt IS NOT NULL", (job,))
        return {str(u): json.loads(receipt) for u, receipt in rows}

    def forget_chunks(self, update_ids: Sequence[str]) -> None:
        """The bodies of these updates are gone from the spool."""
        with self._transaction() as db:
            db.executemany("DELETE FROM chunks WHERE update_id = ?", [(u,) for u in update_ids])

    def forget_updates(self, update_ids: Sequence[str]) -> None:
        """Nothing of these incomplete updates is kept but their manifests: they count as never begun."""
        rows = [(u, RECEIVING) for u in update_ids]
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM chunks WHERE update_id IN"
                " (SELECT update_id FROM updates WHERE update_id = ? AND state = ?)",
                rows,
            )
            db.executemany("DELETE FROM updates WHERE update_id = ? AND state = ? AND manifest IS NULL", rows)

    def forget_job_chunks(self, job: str, *, but: Sequence[str] = ()) -> None:
        """The bodies of all updates of a job are gone from the spool, `but` those of these."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM chunks WHERE update_id IN (SELECT update_id FROM updates WHERE job = ?)"
                " AND update_id NOT IN (SELECT value FROM json_each(?))",
                (job, json.dumps(list(but))),
            )

    # facts

    def record_facts(
        self,
        job: str,
        facts: Sequence[tuple[str, Mapping[str, Any]]],
        *,
        decided: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        at: float,
    ) -> int:
        """Append facts `(kind, body)` and decide updates (id → receipt), all or nothing; returns the last sequence."""
        with self._transaction() as db:
            for kind, body in facts:
                db.execute(
                    "INSERT INTO facts (job, kind, body, at) VALUES (?,?,?,?)", (job, kind, json.dumps(body), at)
                )
            db.executemany(
                "UPDATE updates SET state = ?, receipt = ? WHERE update_id = ?",
                [(DECIDED, json.dumps(receipt), update_id) for update_id, receipt in decided.items()],
            )
            row = db.execute("SELECT COALESCE(MAX(seq), 0) FROM facts").fetchone()
        return int(row[0])

    def facts(self, job: str, *, after: int = 0) -> list[Fact]:
        """Facts of a job in order, those with a sequence number above `after`."""
        rows = self._rows("SELECT seq, kind, body, at FROM facts WHERE job = ? AND seq > ? ORDER BY seq", (job, after))
        return [Fact(seq=s, kind=k, body=json.loads(b), at=t) for s, k, b, t in rows]

    # versions

    def mark_published(self, job: str, version: int, *, at: float) -> None:
        """The version's manifest was confirmed by the broker."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO versions VALUES (?,?,?)", (job, version, at))

    def published(self, job: str) -> list[int]:
        """Versions that were published, in order."""
        return [int(r[0]) for r in self._rows("SELECT version FROM versions WHERE job = ? ORDER BY version", (job,))]

    def last_published(self, job: str) -> int:
        """Newest published version, -1 when none was."""
        row = self._rows("SELECT COALESCE(MAX(version), -1) FROM versions WHERE job = ?", (job,))[0]
        return int(row[0])

    def name_model_log(self, job: str, stream: str) -> str:
        """Keep the name of a job's model log, unless it has one; returns the name that it has."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO model_logs VALUES (?,?)", (job, stream))
        return self.model_log(job) or stream

    def model_log(self, job: str) -> str | None:
        """The name of a job's model log; None when none was kept, as in ledgers of earlier releases."""
        rows = self._rows("SELECT stream FROM model_logs WHERE job = ?", (job,))
        return str(rows[0][0]) if rows else None

    # what people ask about

    def add_incident(self, job: str, kind: str, text: str, *, at: float) -> None:
        """Keep what went wrong, or right again; `at` is seconds since the epoch."""
        with self._transaction() as db:
            db.execute("INSERT INTO incidents VALUES (?,?,?,?)", (job, at, kind, text))

    def incidents(self, job: str, *, newest: int) -> list[tuple[float, str, str]]:
        """(at, kind, text) of the newest so many incidents of a job, in order."""
        query = "SELECT at, kind, text FROM incidents WHERE job = ? ORDER BY rowid DESC LIMIT ?"
        return [(float(at), str(kind), str(text)) for at, kind, text in reversed(self._rows(query, (job, newest)))]

    def refusals(self, job: str) -> list[tuple[str, int]]:
        """Why updates of a job were refused and how often, the most frequent first."""
        rows = self._rows(
            "SELECT json_extract(body, '$.reason') AS reason, COUNT(*) AS times FROM facts"
            " WHERE job = ? AND kind = 'refused' GROUP BY reason ORDER BY times DESC",
            (job,),
        )
        return [(str(reason), int(times)) for reason, times in rows]

    def last_sign_of_life(self, job: str) -> float:
        """When something of a job was last written, seconds since the epoch; 0 when nothing was."""
        row = self._rows(
            "SELECT MAX(COALESCE((SELECT MAX(at) FROM facts WHERE job = ?1), 0),"
            " COALESCE((SELECT MAX(published_at) FROM versions WHERE job = ?1), 0),"
            " COALESCE((SELECT MAX(received_at) FROM updates WHERE job = ?1), 0))",
            (job,),
        )[0]
        return float(row[0])


def _unusable(path: Path, exc: sqlite3.Error) -> str:
    return f"cannot open ledger {path}: {exc}; is it a fedbus ledger and may this user write it?"
