"""A backup made a state folder again, in which the jobs that had not ended go on from where the backup has them.

What the federation has done since is not in it, and its sites hold later versions. So each such job goes on in a new
model log, with a new key where there are kits: a site that is told of another log forgets what it holds and begins
with the snapshot there. Nothing counts twice, for what was folded after the backup is in no ledger any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fedbus.errors import StoreError
from fedbus.store.backup import FORMAT, HEAD, LEDGER, SUMS, BackedUpJob, Head
from fedbus.store.files import disk_errors, sync_folder
from fedbus.store.ledger_file import LedgerFile
from fedbus.store.ledger_schema import READABLE
from fedbus.trust.epochs import EpochKey

MOST_HEAD_BYTES, MOST_SUMS_BYTES = 1 << 20, 1 << 28
PIECE_BYTES = 1 << 20
ENDED = ("finished", "failed", "aborted")
GOING_ON = """
SELECT job, COALESCE((SELECT stream FROM model_logs m WHERE m.job = j.job), '') FROM jobs j
WHERE state NOT IN (?, ?, ?) AND EXISTS (SELECT 1 FROM versions v WHERE v.job = j.job)"""
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+=-]*")

Renamed = Callable[[str, str], str]
"""A new name for the model log of a job, by the job and the name it had, "" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored; old_logs: the streams at the broker that nobody needs any more."""

    head: Head
    going_on: tuple[str, ...]
    old_logs: tuple[str, ...]


def restore(file: Path, folder: Path, *, renamed: Renamed, at: float) -> Restored:
    """Make the state folder, which must be new or empty. StoreError for what is no backup, or was changed.

    at: now, in seconds since the epoch.
    """
    with disk_errors("cannot restore into", folder):
        if folder.exists() and any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty: a backup is restored into a new folder")
        beside = folder.absolute().with_name(f".{folder.absolute().name}.restoring")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700, parents=True)
        try:
            head = _unpack(file, beside)
            going_on, old_logs = _begin_anew(beside / LEDGER, head, renamed=renamed, at=at)
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        sync_folder(folder.absolute().parent)
    return Restored(head=head, going_on=going_on, old_logs=old_logs)


def _unpack(file: Path, folder: Path) -> Head:
    try:
        with tarfile.open(file, "r:") as tar:
            head = _head(tar, file)
            sums, listed = {}, None
            for entry in tar:
                if entry.name == HEAD:
                    continue
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or not _inside(entry.name):
                    raise StoreError(f"{file} has an entry that no backup has: {entry.name[:80]!r}")
                if entry.name == SUMS:
                    listed = content.read(MOST_SUMS_BYTES)
                else:
                    sums[entry.name] = _write(content, entry.size, folder / entry.name)
    except tarfile.TarError as exc:
        raise StoreError(f"{file} is no backup of fedbus, or is cut short: {exc}") from exc
    except OSError as exc:
        if exc.filename and str(exc.filename) != str(file):
            raise
        raise StoreError(f"{file} cannot be read: {exc.strerror or exc}") from exc
    if listed is None:
        raise StoreError(f"{file} is cut short: its checksums are missing; take another backup")
    lines = (line.partition("  ") for line in listed.decode(errors="replace").splitlines())
    wanted = {name: digest for digest, _, name in lines}
    if wanted != sums:
        raise StoreError(f"{file}: the checksums in {SUMS} do not fit, it was changed or damaged; take another backup")
    if LEDGER not in sums:
        raise StoreError(f"{file} has no ledger: it is no backup of an aggregator")
    return head


def _head(tar: tarfile.TarFile, file: Path) -> Head:
    """What the backup says of itself. StoreError when another release must read it."""
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == HEAD and first.isreg() else None
    try:
        data = json.loads(content.read(MOST_HEAD_BYTES)) if content is not None else {}
        head = Head(**{**data, "jobs": tuple(BackedUpJob(**job) for job in data["jobs"])})
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{file} is no backup of fedbus: it does not begin with {HEAD}") from exc
    if head.format != FORMAT:
        raise StoreError(f"{file} has format {head.format!r}, this release reads {FORMAT}: upgrade fedbus")
    if head.schema not in READABLE:
        raise StoreError(
            f"{file} was made by fedbus {head.fedbus!r:.40} with schema {head.schema!r:.20}, this release reads"
            f" {READABLE[0]} to {READABLE[-1]}: upgrade fedbus"
        )
    return head


def _inside(name: str) -> bool:
    parts = name.split("/")
    return 1 <= len(parts) <= 8 and all(_PLAIN.fullmatch(part) and len(part) <= 255 for part in parts)


def _write(content: IO[bytes], size: int, to: Path) -> str:
    """Write a file durably; its SHA-256."""
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    hasher, left = hashlib.sha256(), size
    with open(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        while left and (piece := content.read(min(left, PIECE_BYTES))):
            hasher.update(piece)
            out.write(piece)
            left -= len(piece)
        out.flush()
        os.fsync(out.fileno())
    return hasher.hexdigest()


def _begin_anew(path: Path, head: Head, *, renamed: Renamed, at: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Jobs that go on, and the logs that they had. What is kept of each says that it was restored."""
    ledger = LedgerFile(path)
    try:
        with ledger.transaction() as db:
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise StoreError("the ledger in the backup is damaged; take another backup")
            jobs = db.execute(GOING_ON, ENDED).fetchall()
            when = datetime.fromtimestamp(head.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            text = f"restored from the backup of {when}: what was folded after it is lost, and trained anew"
            for job, stream in jobs:
                db.execute("INSERT OR REPLACE INTO model_logs VALUES (?,?)", (job, renamed(job, stream)))
                db.execute("INSERT INTO incidents VALUES (?,?,?,?)", (job, at, "restored", text))
                _new_epoch(db, job, at)
        ledger.hide_from_others()
    finally:
        ledger.close()
    return tuple(job for job, _ in jobs), tuple(stream for _, stream in jobs if stream)


def _new_epoch(db: sqlite3.Connection, job: str, at: float) -> None:
    """A key with a number that no epoch of this job ever had: sites never take another key for one that they know."""
    (newest,) = db.execute("SELECT MAX(epoch) FROM epochs WHERE job = ?", (job,)).fetchone()
    if newest is not None:
        key = EpochKey.make(max(newest + 1, int(at) // 4))
        db.execute("INSERT INTO epochs VALUES (?,?,?,?)", (job, key.number, key.key, True))
