"""What a ledger keeps where participants have kits: signed submits, heads of audit logs, chains, keys of epochs.

The functions write inside a transaction of the ledger: what they keep is true together with its job or version.
"""

from __future__ import annotations

import json
import sqlite3

from fedbus.core.protocol import wire
from fedbus.core.protocol.messages import SignedSubmission
from fedbus.errors import IdTakenError
from fedbus.store.audit_heads import NEWEST, KeptHead, kept
from fedbus.store.ledger_file import LedgerFile


class LedgerTrust:
    """The tables submissions, audit_heads, chains and epochs of a ledger."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def submission(self, job: str) -> tuple[SignedSubmission | None, str]:
        """The signed submit of a job, and the job whose submit it is when that is not this one, else ""."""
        rows = self._file.rows("SELECT signed, follows FROM submissions WHERE job = ?", (job,))
        return (SignedSubmission(**json.loads(rows[0][0])), str(rows[0][1])) if rows else (None, "")

    def audit_heads(self) -> list[KeptHead]:
        """The newest heads of the sites' audit logs by site and job; of each site the newest first."""
        return kept(self._file.rows(NEWEST))

    def newest_chain(self, job: str) -> tuple[int, str]:
        """The newest version that has a chain, and that chain; (-1, "") when none has."""
        rows = self._file.rows("SELECT version, chain FROM chains WHERE job = ? ORDER BY version DESC LIMIT 1", (job,))
        return (int(rows[0][0]), str(rows[0][1])) if rows else (-1, "")

    def add_epoch(self, job: str, epoch: int, key: bytes, *, fresh: bool, instead_of: int | None = None) -> None:
        """Keep the key of an epoch of a job's model log, which never changes; only the owner may read the file then.

        fresh: the epoch begins with a snapshot, so that who is given it needs no earlier one. instead_of: one that
        nothing was sealed with, which goes.
        """
        with self._file.transaction() as db:
            db.execute("DELETE FROM epochs WHERE job = ? AND epoch = ?", (job, instead_of))
            db.execute("INSERT INTO epochs VALUES (?,?,?,?)", (job, epoch, key, fresh))
        self._file.hide_from_others()

    def epochs(self, job: str) -> list[tuple[int, bytes, bool]]:
        """Number, key and `fresh` of the epochs of a job's model log, in order."""
        rows = self._file.rows("SELECT epoch, key, fresh FROM epochs WHERE job = ? ORDER BY epoch", (job,))
        return [(int(epoch), bytes(key), bool(fresh)) for epoch, key, fresh in rows]


def keep_submission(db: sqlite3.Connection, job: str, signed: SignedSubmission) -> None:
    """Keep the signed submit of a new job. IdTakenError when it has made a job before."""
    if db.execute("INSERT OR IGNORE INTO used VALUES (?)", (signed.message_id,)).rowcount == 0:
        raise IdTakenError(f"message {signed.message_id[:64]!r} has submitted a job before, which is forgotten")
    db.execute("INSERT INTO submissions VALUES (?,?,?)", (job, "", wire.to_json(signed).decode()))


def pass_submission_on(db: sqlite3.Connection, job: str, follow_up: str) -> None:
    """The job that follows one carries its signed submit, if that has one."""
    db.execute(
        "INSERT OR IGNORE INTO submissions (job, follows, signed) SELECT ?, job, signed FROM submissions WHERE job = ?",
        (follow_up, job),
    )


def keep_chain(db: sqlite3.Connection, job: str, version: int, chain: str) -> None:
    """Keep the number that names a published version and all before it."""
    db.execute("INSERT OR REPLACE INTO chains VALUES (?,?,?)", (job, version, chain))
