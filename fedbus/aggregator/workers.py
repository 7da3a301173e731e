"""Threads of the aggregator: one that writes durable files, and of each job one that computes with its tensors and one
that writes its checkpoints.

The event loop only moves messages; fsync and torch never block it. One thread each, so that a job's global model has
one user at a time and its folds happen in the order they were decided; a job that computes for long holds up no other.

A full disk is waited out: what could not be written is tried again until there is room. Nothing is acknowledged
meanwhile, so the broker holds what comes, and nothing crashes that would only fail again after a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import ParamSpec, Self, TypeVar

import structlog

from fedbus.errors import DiskFullError

RETRY = timedelta(seconds=2)

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger()


class Disk:
    """Whether the state folder's disk has room. `full` says what could not be written, None while there is room."""

    def __init__(self) -> None:
        self.full: str | None = None
        self.told: Callable[[str], object] = lambda text: None
        self._since = 0.0

    def failed(self, exc: DiskFullError) -> None:
        """There was no room for a write."""
        if self.full is None:
            self._since = time.monotonic()
            log.error("disk-full", error=str(exc), text="nothing is taken until there is room; nothing is lost")
        self.full = str(exc)

    def worked(self) -> None:
        """A write that had failed went through."""
        if self.full is not None:
            self.full = None
            self.told(f"the aggregator's disk was full for {time.monotonic() - self._since:.0f} s: nothing was taken")


class Worker:
    """One named thread; `await worker(function, ...)` runs a function on it, again while the disk is full."""

    def __init__(self, name: str, disk: Disk, *, retry: timedelta = RETRY) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._disk = disk
        self._retry_s = retry.total_seconds()

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        waited = False
        while True:
            try:
                result = await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
            except DiskFullError as exc:
                self._disk.failed(exc)
                waited = True
                await asyncio.sleep(self._retry_s)
            else:
                if waited:
                    self._disk.worked()
                return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=True)
