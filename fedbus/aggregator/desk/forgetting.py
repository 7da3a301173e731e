"""Jobs that are over and wanted no more: what they take on disk, and how all of it goes.

Only a job that has ended and was closed can be forgotten; nothing here touches one that runs. Files go before the rows
that name them, and the row of the job last, so that a kill in between, or a file that cannot be deleted, leaves a job
that can be forgotten again. They go beside the thread that writes for all jobs, for that may take a while.

What is left is what others have of it: events in `fedbus.events` until they expire, logs, files that sites keep.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from fedbus.aggregator.model.log import stream_of
from fedbus.aggregator.tools import Tools
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import delete_queue
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.answers import EndedJob
from fedbus.errors import FedbusError, StoreError
from fedbus.store.audit_kinds import Kind
from fedbus.store.files import bytes_below
from fedbus.store.ledger_schema import ANYBODY
from fedbus.store.rows import JobRow
from fedbus.store.spool import Spool

DAY_S = 86400.0
LOOK_S = 600.0

log = structlog.get_logger()


class NotOverError(FedbusError):
    """The job cannot be forgotten: it does not exist, or is not over."""


class Forgetting:
    """`is_open(job)` says whether a job runs or is being closed. Limits that are None do not hold."""

    def __init__(
        self,
        *,
        tools: Tools,
        spool: Spool,
        session: Session,
        state_dir: Path,
        is_open: Callable[[str], bool],
        keep_days: float | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        self._tools = tools
        self._spool = spool
        self._session = session
        self._state_dir = state_dir
        self._is_open = is_open
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes

    async def run(self) -> None:
        """Hold the limits, for ever."""
        while self._keep_days is not None or self._keep_bytes is not None:
            for ended_job in self._beyond(await self.ended(), now=time.time()):
                try:
                    gone = await self.forget(ended_job.job)
                except NotOverError:
                    continue
                except StoreError as exc:
                    log.error("job-not-forgotten", job=ended_job.job, error=str(exc), retry_s=LOOK_S)
                    continue
                self._tools.audit.note(Kind.JOB_FORGOTTEN, job=ended_job.job, by="the settings", bytes=gone)
                log.info("job-forgotten", job=ended_job.job, disk_bytes=gone, text="beyond what the settings keep")
            await asyncio.sleep(LOOK_S)

    def _beyond(self, ended: Sequence[EndedJob], *, now: float) -> list[EndedJob]:
        """Of the ended jobs, oldest first, those that are too old, or of which others leave no room."""
        kept_bytes, beyond = sum(one.disk_bytes for one in ended), []
        for one in ended:
            old = self._keep_days is not None and now - one.ended_at > self._keep_days * DAY_S
            if old or (self._keep_bytes is not None and kept_bytes > self._keep_bytes):
                beyond.append(one)
                kept_bytes -= one.disk_bytes
        return beyond

    async def ended(self) -> list[EndedJob]:
        """Every job that can be forgotten, the one that ended first, first."""
        rows = await self._tools.compute(self._tools.ledger.jobs)
        over = [row for row in rows if self._why_not(row.job, row) == ""]
        sizes = await self._tools.compute(self._sizes, [row.job for row in over])
        found = [
            EndedJob(job=row.job, state=row.state, ended_at=row.ended_at or row.submitted_at, disk_bytes=size)
            for row, size in zip(over, sizes, strict=True)
        ]
        return sorted(found, key=lambda one: one.ended_at)

    async def forget(self, job: str) -> int:
        """Forget a job; the bytes that its files had. Raises NotOverError, and StoreError when a file stays."""
        row = await self._tools.store(self._tools.ledger.job, job)
        if reason := self._why_not(job, row):
            raise NotOverError(reason)
        sites = await self._tools.store(self._tools.ledger.participants, job)
        await delete_queue(self._session, t.updates_queue(job))
        for stream in {await stream_of(job, self._tools), t.models_stream(job)}:
            await delete_queue(self._session, stream)
        gone = await self._tools.compute(self._remove_files, job)
        await self._tools.store(self._tools.ledger.forget_job, job)
        self._tools.telemetry.metrics.forget(job)
        for site in sorted(sites - {ANYBODY}):
            await self._tools.announcer.tell(site, m.JobForgotten(job=job))
        return gone

    def _why_not(self, job: str, row: JobRow | None) -> str:
        if row is None:
            return f"no job {job!r}: see `fedbus jobs`"
        if self._is_open(job):
            return f"job {job} is being closed: try again in some seconds"
        if not m.JobState(row.state).ended:
            return f"job {job} is {row.state}: only a job that has ended can be forgotten; `fedbus abort {job}` ends it"
        return ""

    def _sizes(self, jobs: Sequence[str]) -> list[int]:
        return [sum(map(bytes_below, self._folders(job))) for job in jobs]

    def _remove_files(self, job: str) -> int:
        gone = 0
        for folder in self._folders(job):
            gone += bytes_below(folder)
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise StoreError(f"cannot delete {folder}: {exc.strerror}; the job is kept, delete it again") from exc
        return gone

    def _folders(self, job: str) -> list[Path]:
        return [self._state_dir / "jobs" / job, self._spool.archive(job), self._spool.folder(job)]
