"""The aggregator's ledger: one SQLite file (WAL) that says which jobs, updates and facts there were.

What lives here: rows, and the transactions that keep them true. What may not: rules (see `fedbus.core`), tensors.

The tables stand in `ledger_schema`. Every write is durable when the call returns, and any thread may call: see
`ledger_file`. `trust` has what was signed, sealed and chained, `findings` what sites have measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedbus.core.protocol.messages import SignedSubmission, UpdateId, UpdateManifest
from fedbus.core.rules.facts import Committed, Fact
from fedbus.errors import IdTakenError
from fedbus.store import ledger_schema as schema
from fedbus.store.audit_heads import Differing
from fedbus.store.audit_heads import keep as keep_head
from fedbus.store.fact_rows import from_row, to_row
from fedbus.store.findings import Findings
from fedbus.store.ledger_file import LedgerFile
from fedbus.store.ledger_trust import LedgerTrust, keep_chain, keep_submission, pass_submission_on
from fedbus.store.manifests import from_text, to_text
from fedbus.store.rows import JOBS, ChunkRow, FollowUp, JobRow, Recorded, job_row

RECEIVING, SPOOLED, DECIDED = "receiving", "spooled", "decided"


class Ledger:
    """Use as a context manager. Raises StoreError when the file cannot be used. `open_file` is how it is opened."""

    def __init__(self, path: Path, *, open_file: Callable[[Path], LedgerFile] = LedgerFile) -> None:
        self._file = open_file(path)
        self.trust = LedgerTrust(self._file)
        self.findings = Findings(self._file)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    # jobs

    def add_job(
        self,
        job: str,
        spec: Mapping[str, Any],
        *,
        message_id: str,
        submitted_by: str,
        state: str,
        at: float,
        signed: SignedSubmission | None = None,
    ) -> str:
        """Record a job and return its id; a second submit with the same message id returns the first one's.

        Whether that is the same submit the caller sees by its spec. Raises IdTakenError when another submit's job
        has this id, or when the job of a signed submit was forgotten.
        """
        with self._file.transaction() as db:
            row = db.execute("SELECT job FROM jobs WHERE message_id = ?", (message_id,)).fetchone()
            if row:
                return str(row[0])
            if db.execute("SELECT 1 FROM jobs WHERE job = ?", (job,)).fetchone():
                raise IdTakenError(f"there is a job {job} already, which another message has submitted")
            if signed is not None:
                keep_submission(db, job, signed)
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
        with self._file.transaction() as db:
            db.execute(f"UPDATE jobs SET {assignments} WHERE job = ?", (*values, job))  # noqa: S608 names are checked above

    def end_job(
        self, job: str, *, state: str, reason: str, result: Mapping[str, object], at: float, follow_up: FollowUp | None
    ) -> None:
        """Record how a job has ended, and with it, in one write, the job that follows: of the same submitter.

        Where there is a job of that id already, it stays as it is.
        """
        with self._file.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, reason = ?, result = ?, ended_at = ? WHERE job = ?",
                (state, reason, json.dumps(result), at, job),
            )
            if follow_up is not None:
                db.execute(
                    "INSERT OR IGNORE INTO jobs (job, spec, state, message_id, submitted_by, submitted_at)"
                    " SELECT ?, ?, ?, ?, submitted_by, ? FROM jobs WHERE job = ?",
                    (follow_up.job, json.dumps(follow_up.spec), follow_up.state, follow_up.job, at, job),
                )
                pass_submission_on(db, job, follow_up.job)

    def jobs(self) -> list[JobRow]:
        """All jobs, oldest first."""
        return [job_row(row) for row in self._file.rows(f"{JOBS} ORDER BY submitted_at, rowid")]

    def states(self) -> dict[str, int]:
        """How many jobs are in each state that one is in."""
        return {
            str(state): int(count)
            for state, count in self._file.rows("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        }

    def job(self, job: str) -> JobRow | None:
        """One job; None when there is none of that id."""
        rows = self._file.rows(f"{JOBS} WHERE job = ?", (job,))
        return job_row(rows[0]) if rows else None

    def endings(self, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
        """State and reason of those of `jobs` that are known."""
        query = "SELECT job, state, reason FROM jobs WHERE job IN (SELECT value FROM json_each(?))"
        return {
            str(job): (str(state), str(reason))
            for job, state, reason in self._file.rows(query, (json.dumps(list(jobs)),))
        }

    def forget_job(self, job: str) -> None:
        """Delete every row of a job, and give the room back to the disk when much of the file is empty."""
        with self._file.transaction() as db:
            for table in schema.TABLES_OF_A_JOB:
                db.execute(f"DELETE FROM {table} WHERE job = ?", (job,))  # noqa: S608 our own names
        self._file.give_back_room()

    def add_participant(self, job: str, site: str, *, at: float) -> None:
        """A site has accepted a job: what it sends for it counts from now on, whatever is restarted."""
        with self._file.transaction() as db:
            db.execute("INSERT OR IGNORE INTO participants (job, site, at) VALUES (?,?,?)", (job, site, at))

    def participants(self, job: str) -> frozenset[str]:
        """Sites that have ever accepted a job; `ledger_schema.ANYBODY` when a release that kept none began it."""
        return frozenset(
            str(site) for (site,) in self._file.rows("SELECT site FROM participants WHERE job = ?", (job,))
        )

    def sites(self) -> frozenset[str]:
        """Sites that have ever accepted any job."""
        return frozenset(str(site) for (site,) in self._file.rows("SELECT DISTINCT site FROM participants"))

    # updates and their chunks

    def record_arrivals(
        self,
        chunks: Sequence[ChunkRow],
        manifests: Sequence[UpdateManifest],
        *,
        complete: Collection[tuple[str, str]] = (),
        at: float,
    ) -> list[Differing]:
        """Record chunks, whose bytes are already synced, and manifests, with the heads of audit logs that they bring.

        complete: (job, update id) of updates whose manifest and every chunk are on disk by that. Returns the heads that
        cannot come after those that are known.
        """
        differing: list[Differing | None] = []
        with self._file.transaction() as db:
            insert = "INSERT OR IGNORE INTO updates (update_id, job, site, state, received_at) VALUES (?,?,?,?,?)"
            db.executemany(insert, [(c.update_id, c.job, c.site, RECEIVING, at) for c in chunks])
            db.executemany(
                "INSERT OR IGNORE INTO chunks (job, update_id, idx, offset, length) VALUES (?,?,?,?,?)",
                [(c.job, c.update_id, c.index, c.offset, c.length) for c in chunks],
            )
            for manifest in manifests:
                job, update_id = manifest.job, manifest.update_id
                db.execute(insert, (update_id, job, UpdateId.parse(update_id).site, RECEIVING, at))
                kept = db.execute(
                    "UPDATE updates SET manifest = ? WHERE job = ? AND update_id = ? AND manifest IS NULL",
                    (to_text(manifest), job, update_id),
                )
                if kept.rowcount:
                    differing.append(keep_head(db, manifest, at=at))
            db.executemany(
                "UPDATE updates SET state = ?, received_at = ? WHERE job = ? AND update_id = ? AND state = ?",
                [(SPOOLED, at, job, update_id, RECEIVING) for job, update_id in complete],
            )
        return [one for one in differing if one is not None]

    def update_states(self, job: str) -> dict[str, str]:
        """State of every update of a job: receiving, spooled or decided."""
        rows = self._file.rows("SELECT update_id, state FROM updates WHERE job = ?", (job,))
        return {str(u): str(s) for u, s in rows}

    def manifests(self, job: str, state: str) -> list[UpdateManifest]:
        """Manifests of a job's updates in `state`, in order of arrival; updates without one are left out."""
        rows = self._file.rows(
            "SELECT manifest FROM updates WHERE job = ? AND state = ? AND manifest IS NOT NULL"
            " ORDER BY received_at, rowid",
            (job, state),
        )
        return [from_text(str(row[0])) for row in rows]

    def chunks(self, job: str, update_id: str) -> list[tuple[int, int, int]]:
        """(index, offset, length) of an update's chunks, by index."""
        query = "SELECT idx, offset, length FROM chunks WHERE job = ? AND update_id = ? ORDER BY idx"
        return [(int(i), int(o), int(n)) for i, o, n in self._file.rows(query, (job, update_id))]

    def spooled(self) -> list[tuple[str, str, int]]:
        """(job, update id, bytes) of all updates whose bodies are kept: so long a file must be at least."""
        query = "SELECT job, update_id, MAX(offset + length) FROM chunks GROUP BY job, update_id"
        return [(str(job), str(update_id), int(end)) for job, update_id, end in self._file.rows(query)]

    def receipt(self, job: str, update_id: str) -> Mapping[str, Any] | None:
        """The receipt of an update that was decided; None before that."""
        query = "SELECT receipt FROM updates WHERE job = ? AND update_id = ? AND receipt IS NOT NULL"
        rows = self._file.rows(query, (job, update_id))
        return json.loads(rows[0][0]) if rows else None

    def receipts(self, job: str) -> dict[str, Mapping[str, Any]]:
        """The receipts of all updates of a job that were decided, by update id."""
        rows = self._file.rows("SELECT update_id, receipt FROM updates WHERE job = ? AND receipt IS NOT NULL", (job,))
        return {str(u): json.loads(receipt) for u, receipt in rows}

    def forget_chunks(self, job: str, update_ids: Sequence[str]) -> None:
        """The bodies of these updates are gone from the spool."""
        with self._file.transaction() as db:
            db.executemany("DELETE FROM chunks WHERE job = ? AND update_id = ?", [(job, u) for u in update_ids])

    def forget_updates(self, job: str, update_ids: Sequence[str]) -> None:
        """Nothing of these incomplete updates is kept but their manifests: they count as never begun."""
        rows = [(job, u, RECEIVING) for u in update_ids]
        with self._file.transaction() as db:
            db.executemany(
                "DELETE FROM chunks WHERE (job, update_id) IN"
                " (SELECT job, update_id FROM updates WHERE job = ? AND update_id = ? AND state = ?)",
                rows,
            )
            db.executemany(
                "DELETE FROM updates WHERE job = ? AND update_id = ? AND state = ? AND manifest IS NULL", rows
            )

    def forget_job_chunks(self, job: str, *, but: Sequence[str] = ()) -> None:
        """The bodies of all updates of a job are gone from the spool, `but` those of these."""
        with self._file.transaction() as db:
            db.execute(
                "DELETE FROM chunks WHERE job = ? AND update_id NOT IN (SELECT value FROM json_each(?))",
                (job, json.dumps(list(but))),
            )

    # facts

    def record_facts(
        self,
        job: str,
        facts: Sequence[Fact],
        *,
        decided: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        at: float,
    ) -> int:
        """Append facts and decide updates (id → receipt), all or nothing; returns the last sequence."""
        with self._file.transaction() as db:
            for kind, body in map(to_row, facts):
                db.execute(
                    "INSERT INTO facts (job, kind, body, at) VALUES (?,?,?,?)", (job, kind, json.dumps(body), at)
                )
            db.executemany(
                "UPDATE updates SET state = ?, receipt = ? WHERE job = ? AND update_id = ?",
                [(DECIDED, json.dumps(receipt), job, update_id) for update_id, receipt in decided.items()],
            )
            row = db.execute("SELECT COALESCE(MAX(seq), 0) FROM facts").fetchone()
        return int(row[0])

    def facts(self, job: str, *, after: int = 0) -> list[Recorded]:
        """Facts of a job in order, those with a sequence number above `after`. StoreError for a row that is none."""
        rows = self._file.rows(
            "SELECT seq, kind, body, at FROM facts WHERE job = ? AND seq > ? ORDER BY seq", (job, after)
        )
        return [Recorded(seq=s, fact=from_row(k, json.loads(b), seq=s), at=t) for s, k, b, t in rows]

    def fact_texts(self, job: str, *, after: int, most: int) -> list[tuple[int, str, str]]:
        """The first so many facts after a sequence as their rows have them: sequence, kind and JSON body."""
        query = "SELECT seq, kind, body FROM facts WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?"
        return self._file.rows(query, (job, after, most))

    def last_seq(self, job: str) -> int:
        """The sequence number of the newest fact of a job; 0 when there is none."""
        return int(self._file.rows("SELECT COALESCE(MAX(seq), 0) FROM facts WHERE job = ?", (job,))[0][0])

    # versions

    def mark_published(self, job: str, version: int, *, at: float, chain: str = "") -> None:
        """The version's manifest was confirmed by the broker; `chain` is what it said, "" for nothing."""
        with self._file.transaction() as db:
            db.execute("INSERT OR IGNORE INTO versions VALUES (?,?,?)", (job, version, at))
            if chain:
                keep_chain(db, job, version, chain)

    def published(self, job: str) -> list[int]:
        """Versions that were published, in order."""
        return [
            int(r[0]) for r in self._file.rows("SELECT version FROM versions WHERE job = ? ORDER BY version", (job,))
        ]

    def last_published(self, job: str) -> int:
        """Newest published version, -1 when none was."""
        row = self._file.rows("SELECT COALESCE(MAX(version), -1) FROM versions WHERE job = ?", (job,))[0]
        return int(row[0])

    def last_committed(self, job: str) -> int:
        """The newest version that was decided on; 0 when there is none but the first."""
        row = self._file.rows(
            "SELECT json_extract(body, '$.version') FROM facts WHERE job = ? AND kind = 'committed'"
            " ORDER BY seq DESC LIMIT 1",
            (job,),
        )
        return int(row[0][0]) if row else 0

    def commits(self, job: str, *, after: int, most: int) -> list[tuple[Committed, float]]:
        """The facts of the first so many versions after version `after`, in order, and when they were made."""
        rows = self._file.rows(
            "SELECT seq, kind, body, at FROM facts WHERE job = ? AND kind = 'committed'"
            " AND json_extract(body, '$.version') > ? ORDER BY seq LIMIT ?",
            (job, after, most),
        )
        read = ((from_row(k, json.loads(b), seq=s), t) for s, k, b, t in rows)
        return [(fact, at) for fact, at in read if isinstance(fact, Committed)]

    def name_model_log(self, job: str, stream: str) -> str:
        """Keep the name of a job's model log, unless it has one; returns the name that it has."""
        with self._file.transaction() as db:
            db.execute("INSERT OR IGNORE INTO model_logs VALUES (?,?)", (job, stream))
        return self.model_log(job) or stream

    def model_log(self, job: str) -> str | None:
        """The name of a job's model log; None when none was kept, as in ledgers of earlier releases."""
        rows = self._file.rows("SELECT stream FROM model_logs WHERE job = ?", (job,))
        return str(rows[0][0]) if rows else None

    # what people ask about

    def add_incident(self, job: str, kind: str, text: str, *, at: float) -> None:
        """Keep what went wrong, or right again; `at` is seconds since the epoch."""
        with self._file.transaction() as db:
            db.execute("INSERT INTO incidents VALUES (?,?,?,?)", (job, at, kind, text))

    def incidents(self, job: str, *, newest: int) -> list[tuple[float, str, str]]:
        """(at, kind, text) of the newest so many incidents of a job, in order."""
        query = "SELECT at, kind, text FROM incidents WHERE job = ? ORDER BY rowid DESC LIMIT ?"
        return [(float(at), str(kind), str(text)) for at, kind, text in reversed(self._file.rows(query, (job, newest)))]

    def what_came(self) -> list[tuple[str, str, int, int, float]]:
        """Site, job, whole updates, their bytes, and when the newest came: of all jobs, in order of site and job."""
        query = (
            "SELECT site, job, COUNT(*), COALESCE(SUM(json_extract(manifest, '$.body_bytes')), 0), MAX(received_at)"
            " FROM updates WHERE manifest IS NOT NULL GROUP BY site, job ORDER BY site, job"
        )
        return [(str(s), str(j), int(n), int(size), float(at)) for s, j, n, size, at in self._file.rows(query)]

    def refusals(self, job: str) -> list[tuple[str, int]]:
        """Why updates of a job were refused and how often, the most frequent first."""
        rows = self._file.rows(
            "SELECT json_extract(body, '$.reason') AS reason, COUNT(*) AS times FROM facts"
            " WHERE job = ? AND kind = 'refused' GROUP BY reason ORDER BY times DESC",
            (job,),
        )
        return [(str(reason), int(times)) for reason, times in rows]

    def last_sign_of_life(self, job: str) -> float:
        """When something of a job was last written, seconds since the epoch; 0 when nothing was."""
        row = self._file.rows(
            "SELECT MAX(COALESCE((SELECT MAX(at) FROM facts WHERE job = ?1), 0),"
            " COALESCE((SELECT MAX(published_at) FROM versions WHERE job = ?1), 0),"
            " COALESCE((SELECT MAX(received_at) FROM updates WHERE job = ?1), 0),"
            " COALESCE((SELECT MAX(at) FROM scores WHERE job = ?1), 0),"
            " COALESCE((SELECT MAX(at) FROM answers WHERE job = ?1), 0))",
            (job,),
        )[0]
        return float(row[0])
