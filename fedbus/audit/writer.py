"""Writing an audit log from an event loop: lines that come together share one fsync, and nothing waits on a thread.

`write` returns when its line is durable, and until then nothing of what it tells of may leave. `note` does not wait:
it is for what does not leave, and its line is durable before any that is written after it. While the disk is full, or
the log cannot be written for any other reason, `write` waits, and that is said: what leaves waits with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import structlog

from fedbus.errors import StoreError
from fedbus.store.audit import AuditLog
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import NOTHING, Entry, Head

NOTE_S = 0.5
RETRY_S = 2.0
CLOSE_LIMIT_S = 3.0
MOST_WAITING = 10_000

log = structlog.get_logger()
_Waiting = tuple[Entry, asyncio.Future[Head] | None]


class Audit(Protocol):
    """Whoever keeps what is told."""

    async def write(self, kind: Kind, **facts: object) -> Head:
        """Return when the line is durable, however long that takes."""

    def note(self, kind: Kind, **facts: object) -> None:
        """Add a line soon."""


class NoAudit:
    """Keeps nothing: for what reaches no broker, and for tests of other things."""

    async def write(self, kind: Kind, **facts: object) -> Head:
        return NOTHING

    def note(self, kind: Kind, **facts: object) -> None:
        return None


class AuditWriter:
    """Writes to a log from one event loop; an async context manager. `opened`: facts of its first line."""

    def __init__(
        self,
        audit_log: AuditLog,
        *,
        clock: Callable[[], float] = time.time,
        retry_s: float = RETRY_S,
        most_waiting: int = MOST_WAITING,
        **opened: object,
    ) -> None:
        self._log = audit_log
        self._clock = clock
        self._retry_s = retry_s
        self._most_waiting = most_waiting
        self._opened = opened
        self._waiting: list[_Waiting] = []
        self._lost = 0
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        await self._group.__aenter__()
        self._writing = self._group.create_task(self._run(), name="audit log")
        self.note(Kind.LOG_OPENED, **self._opened)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT_S):
                    await self.write(Kind.LOG_CLOSED)
        finally:
            self._writing.cancel()
            await self._group.__aexit__(None, None, None)
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def write(self, kind: Kind, **facts: object) -> Head:
        """Return when the line is durable, however long that takes."""
        durable: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._waiting.append((Entry(kind=kind, at=self._clock(), facts=facts), durable))
        self._some.set()
        self._urgent.set()
        return await durable

    def note(self, kind: Kind, **facts: object) -> None:
        """Add a line within NOTE_S, or with the next that is written; of very many that wait the rest is counted."""
        if len(self._waiting) >= self._most_waiting:
            self._lost += 1
            return
        self._waiting.append((Entry(kind=kind, at=self._clock(), facts=facts), None))
        self._some.set()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTE_S):
                    await self._urgent.wait()
            self._some.clear()
            self._urgent.clear()
            waiting, self._waiting = self._waiting, []
            if self._lost:
                lost, self._lost = self._lost, 0
                waiting.append((Entry(kind=Kind.LINES_LOST, at=self._clock(), facts={"lines": lost}), None))
            heads = await self._append([entry for entry, _ in waiting])
            for (_, durable), head in zip(waiting, heads, strict=True):
                if durable is not None and not durable.done():
                    durable.set_result(head)

    async def _append(self, entries: list[Entry]) -> list[Head]:
        loop, failed = asyncio.get_running_loop(), False
        while True:
            try:
                heads = await loop.run_in_executor(self._pool, self._log.append, entries)
            except StoreError as exc:
                if not failed:
                    log.error("audit-unwritable", error=str(exc), text="nothing leaves until this can be written")
                failed = True
                await asyncio.sleep(self._retry_s)
            else:
                if failed:
                    log.info("audit-written", text="the audit log can be written again")
                return heads
