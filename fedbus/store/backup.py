"""A backup of an aggregator's state folder in one file, made while it works.

    FILE   a tar: backup.json, ledger.sqlite3, all other files, and at its end SHA256SUMS

Nothing stops meanwhile. Files are given a second name (hard links, no bytes are copied), then SQLite copies the ledger
as it is at one moment, then what came between gets its second name. So every checkpoint and body that the ledger needs
is there; a checkpoint that is ahead of the ledger is left out. Where the aggregator was faster still, and has deleted a
body in between, all of it is done again.

Who has the file can read what sites have sent: keys are in it, as they are in the folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from fedbus.errors import StoreError
from fedbus.store.checkpoints import read_head
from fedbus.store.files import disk_errors, replace_durably
from fedbus.store.ledger_schema import SCHEMA_VERSION
from fedbus.store.lock import StateLock
from fedbus.store.spool import Bodies
from fedbus.store.state_reader import LedgerReader

FORMAT = 1
HEAD, SUMS, LEDGER = "backup.json", "SHA256SUMS", "ledger.sqlite3"
STAGED = ".backup"
ATTEMPTS = 20
LOCK = "lock"
NOT_STATE = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUpJob:
    """A job as the backup has it; version: the newest that was decided."""

    job: str
    state: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a backup says of itself; `at` in seconds since the epoch."""

    format: int
    fedbus: str
    schema: int
    at: float
    jobs: tuple[BackedUpJob, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def back_up(folder: Path, to: Path, *, release: str, at: float) -> Head:
    """Write the backup of a state folder to a file that only its owner reads. StoreError when it cannot be.

    release: the version of fedbus that writes it.
    """
    if not (folder / LEDGER).exists():
        raise StoreError(f"no ledger {folder / LEDGER}: expected the state folder of an aggregator")
    if to.absolute().is_relative_to(folder.absolute()):
        raise StoreError(f"{to} lies in the state folder that is backed up: choose a file on another disk")
    if not to.absolute().parent.is_dir():
        raise StoreError(f"there is no folder {to.absolute().parent}: make it, or choose another file")
    with _staging(folder) as staged:
        for _ in range(ATTEMPTS):
            lacking = _stage(folder, staged)
            if not lacking:
                break
        else:
            raise StoreError(f"the aggregator deletes faster than it is backed up ({lacking}): try again")
        head = Head(format=FORMAT, fedbus=release, schema=SCHEMA_VERSION, at=at, jobs=tuple(_jobs(staged)))
        with disk_errors("cannot write backup", to), replace_durably(to) as beside:
            os.close(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
            _write(beside, staged, head)
    return head


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder for second names, on the same file system; one backup at a time."""
    staged = folder / STAGED
    with disk_errors("cannot back up in", folder):
        staged.mkdir(mode=0o700, exist_ok=True)
        with StateLock(staged):
            try:
                yield staged
            finally:
                shutil.rmtree(staged, ignore_errors=True)


def _stage(folder: Path, staged: Path) -> str:
    """Gather what belongs together; what is lacking, "" when nothing is."""
    for path in staged.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _link(folder, staged)
    _copy_ledger(folder / LEDGER, staged / LEDGER)
    _link(folder, staged)
    with LedgerReader(staged / LEDGER) as ledger:
        for job in ledger.jobs():
            _drop_ahead(staged / "jobs" / job.job / "checkpoints", ledger.last_seq(job.job))
            if job.layout is not None and job.ended_at is None and not _checkpoints(staged, job.job):
                return f"a checkpoint of job {job.job}"
        bodies = Bodies(staged / "spool")
        for name, update_id, end in ledger.spooled():
            found = bodies.found(name, update_id)
            if found is None or found.stat().st_size < end:
                return f"the body of {update_id}"
    return ""


def _link(folder: Path, staged: Path) -> None:
    """Give every file a second name that has none yet; what goes meanwhile is passed over."""
    for path, _, names in os.walk(folder):
        inside = Path(path).relative_to(folder)
        if inside.parts[:1] == (STAGED,):
            continue
        for name in names:
            if name == LOCK or name.startswith(".") or (not inside.parts and name in NOT_STATE):
                continue
            second = staged / inside / name
            second.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, FileExistsError):
                try:
                    second.hardlink_to(Path(path) / name)
                except (PermissionError, OSError) as exc:
                    if isinstance(exc, FileNotFoundError | FileExistsError):
                        raise
                    shutil.copyfile(Path(path) / name, second)  # not every file system has links


def _copy_ledger(path: Path, to: Path) -> None:
    """The ledger at one moment. Without a WAL nobody writes, and SQLite must not leave one behind."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
        copy = sqlite3.connect(to)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a WAL beside it
        finally:
            copy.close()
            source.close()
    except sqlite3.Error as exc:
        raise StoreError(f"cannot copy ledger {path}: {exc}; may this user read it?") from exc


def _checkpoints(staged: Path, job: str) -> list[Path]:
    return list((staged / "jobs" / job / "checkpoints").glob("v*.safetensors"))


def _drop_ahead(folder: Path, last_seq: int) -> None:
    for path in folder.glob("v*.safetensors"):
        if read_head(path).fact_seq > last_seq:
            path.unlink()


def _jobs(staged: Path) -> Iterator[BackedUpJob]:
    with LedgerReader(staged / LEDGER) as ledger:
        for row in ledger.jobs():
            yield BackedUpJob(job=row.job, state=row.state, version=ledger.last_committed(row.job))


def _write(to: Path, staged: Path, head: Head) -> None:
    sums = []
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, HEAD, io.BytesIO(head.to_json().encode()), len(head.to_json().encode()))
        for path in sorted(each for each in staged.rglob("*") if each.is_file()):
            name = path.relative_to(staged).as_posix()
            if name == LOCK:
                continue
            with path.open("rb") as file:
                sums.append(f"{_add(tar, name, file, os.fstat(file.fileno()).st_size)}  {name}\n")
        listed = "".join(sums).encode()
        _add(tar, SUMS, io.BytesIO(listed), len(listed))


class _Hashing:
    """Reads a file and hashes what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hasher = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hasher.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], size: int) -> str:
    """Add so many bytes of a file, which may grow meanwhile; their SHA-256."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    reading = _Hashing(file)
    tar.addfile(entry, reading)
    return reading.hasher.hexdigest()
