"""The rules that hold at a site now: its settings, the hospital's policy as the file stands, the hours, today's limits.

The file is looked at every second and at SIGHUP. While it cannot be read nothing is allowed. A job that was taken is
asked about again with every change. The same object stands at the door: what leaves is checked there once more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import structlog

from fedbus.core.job.hospital import Submission, against_update, is_open, opens_at
from fedbus.core.job.policy import Accept, Decline, SitePolicy
from fedbus.core.protocol import messages as m
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.site_policy import OutRules
from fedbus.errors import PolicyError, WithheldError
from fedbus.site.policy_file import PolicyFile, read_policy
from fedbus.site.terms import policy_digest
from fedbus.store.day_counts import BYTES, STEPS, DayCounts
from fedbus.training.sayable import Sayable

COUNTS_FILE = "policy-day.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A job that this site has accepted."""

    spec: JobSpec
    submission: Submission


class SiteRules:
    """`floor` is what the settings say; `path` the hospital's policy, None: there is none. Counts lie in `state`.

    now: seconds since the epoch. Raises StoreError.
    """

    def __init__(self, floor: SitePolicy, path: Path | None, *, state: Path, now: Callable[[], float]) -> None:
        self._floor = floor
        self._path = path
        self._now = now
        self._counts = DayCounts(state / COUNTS_FILE)
        self._stamp: object = None
        self._file: PolicyFile | None = None
        self._taken: dict[str, Taken] = {}
        self._refused: dict[str, str] = {}
        self._was: object = None
        self._changed = asyncio.Event()
        self.policy = floor
        self.refresh()

    # -------------------------------------------------------------- the file

    @property
    def are_written(self) -> bool:
        """Whether there is a policy's file, readable or not."""
        return self._path is not None

    @property
    def digest(self) -> str:
        """Of the policy that holds; empty when there is none, or none that can be read."""
        return "" if self._file is None else self._file.digest

    @property
    def named(self) -> str:
        """What the audit log calls the rules that hold: SHA-256 of the policy's file, or of the settings."""
        if self._path is None:
            return f"settings {policy_digest(self._floor)}"
        return f"file {self._file.digest}" if self._file is not None else "unreadable"

    @property
    def shut(self) -> Sayable | None:
        """Why nothing is allowed here at all; None when something is."""
        return Sayable(self.policy.shut) if self.policy.shut else None

    def refresh(self, *, anew: bool = False) -> bool:
        """Look at the file, `anew`: also when it looks as before; whether other rules hold now."""
        if self._path is None:
            return False
        stamp = _stamp(self._path)
        if not anew and self._stamp is not None and stamp == self._stamp:
            return False
        self._stamp, before = stamp, self.policy
        self._file, self.policy = self._read(self._path)
        if self.policy == before:
            return False
        self._ask_again()
        return True

    def _read(self, path: Path) -> tuple[PolicyFile | None, SitePolicy]:
        try:
            file = read_policy(path)
        except PolicyError as exc:
            log.error("policy-unread", error=str(exc), text="nothing is allowed until it can be read")
            return None, replace(self._floor, shut=f"the site's policy cannot be read: {exc.said}")
        log.info("policy-read", digest=file.digest, tasks=sorted(file.policy.tasks))
        return file, replace(self._floor, hospital=file.policy)

    # -------------------------------------------------------------- jobs

    def take(self, job: str, spec: JobSpec, submission: Submission) -> None:
        """The site works for a job from now on, as long as the policy allows it."""
        self._taken[job] = Taken(spec=spec, submission=submission)
        self._refused.pop(job, None)

    def drop(self, job: str) -> bool:
        """The site works for it no longer; whether the rules that hold now would allow it."""
        self._refused.pop(job, None)
        taken = self._taken.pop(job, None)
        return taken is not None and isinstance(self.policy.decide(taken.spec, taken.submission), Accept)

    def refusal(self, job: str) -> Sayable | None:
        """Why a job that was taken is not allowed any more."""
        return Sayable(self._refused[job]) if job in self._refused else None

    def _ask_again(self) -> None:
        for job, taken in self._taken.items():
            answer = self.policy.decide(taken.spec, taken.submission)
            if isinstance(answer, Decline):
                self._refused[job] = answer.reason
            else:
                self._refused.pop(job, None)
        self._tell()

    # -------------------------------------------------------------- hours and days

    @property
    def pause(self) -> Sayable | None:
        """Why the site must not work on its data at this hour; None when it may."""
        if self._file is None:
            return self.shut
        hours, at = self._file.policy.hours, self._local
        if is_open(hours.open, at):
            return None
        opens = opens_at(hours.open, at)
        return Sayable(f"until {opens} {hours.zone}" if opens else "it has no hours at all")

    def training_pause(self, job: str) -> Sayable | None:
        """The same for one more training of a job: the steps of the day."""
        spec = self._taken[job].spec if job in self._taken else None
        steps = getattr(getattr(spec, "local", None), "steps", None)
        left = self._left(STEPS)
        if left is None or steps is None or steps <= left:
            return None
        return self._used_up("the steps")

    def charge_steps(self, steps: int | None) -> None:
        """Count the steps of a training that begins. Raises StoreError."""
        if steps is not None and self._left(STEPS) is not None:
            self._counts.charge(STEPS, steps, today=self._today)

    def _left(self, what: str) -> int | None:
        """None: no limit."""
        if self._file is None:
            return None
        policy = self._file.policy
        limit = policy.jobs.max_steps_per_day if what == STEPS else policy.out.bytes_per_day
        return self._counts.left(what, limit, today=self._today) if isinstance(limit, int) else None

    def _used_up(self, what: str) -> Sayable:
        if trouble := self._counts.trouble(self._today):
            log.error("day-counts", text=trouble)
        return Sayable(f"{what} of the day are used up")

    @property
    def _local(self) -> datetime:
        return datetime.fromtimestamp(self._now(), tz=None if self._file is None else self._file.zone)

    @property
    def _today(self) -> date:
        return self._local.date()

    def tick(self) -> bool:
        """Whether hours or day have turned since the last call; what waits for them goes on."""
        before, self._was = self._was, (self.pause is None, self._today)
        if before == self._was:
            return False
        self._tell()
        return True

    # -------------------------------------------------------------- the door

    @property
    def out(self) -> OutRules | None:
        """What may leave beside updates; None: no policy says."""
        return None if self._file is None else self._file.policy.out

    def may_leave(self, job: str) -> bool:
        """Whether what this site made of its data may leave for a job, now."""
        return self.pause is None and job not in self._refused and self.shut is None

    async def opening(self, job: str) -> None:
        """Wait until `may_leave`."""
        while not self.may_leave(job):
            await self._changed.wait()

    async def admit(self, manifest: m.UpdateManifest) -> None:
        """Wait until an update may leave, and count its bytes. Raises WithheldError when it never may, StoreError."""
        while True:
            await self.opening(manifest.job)
            if self._file is None:
                return
            if reason := against_update(self._file.policy, manifest):
                raise WithheldError(reason)
            left, limit = self._left(BYTES), self._file.policy.out.bytes_per_day
            if isinstance(limit, int) and manifest.body_bytes > limit:
                raise WithheldError(f"this site's policy lets {limit} bytes leave in a day, fewer than one update has")
            if left is None or manifest.body_bytes <= left:
                break
            log.warning("update-waits", job=manifest.job, update=manifest.update_id, text=self._used_up("the bytes"))
            await self._changed.wait()
        self.charge_bytes(manifest.body_bytes, durably=True)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may still leave today."""
        left = self._left(BYTES)
        return left is None or size <= left

    def charge_bytes(self, size: int, *, durably: bool = False) -> None:
        """Count bytes that leave. Raises StoreError."""
        if self._left(BYTES) is not None:
            self._counts.charge(BYTES, size, today=self._today, durably=durably)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError as exc:
        return exc.errno
    return found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
