"""The same questions without asyncio: the event loop is in a thread of its own, so that a cell may block.

closed       by `close`, by `with`, when nobody has the object any more, or when the interpreter ends
Ctrl-C       cancels the question and is raised; the connection stays
threads      may ask at the same time
fork         the child has no such thread: it is told to connect itself
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Self, TypeVar

from fedbus.console.fetch import Fetched
from fedbus.core.protocol.answers import JobDetail, JobLine, SiteLine
from fedbus.core.protocol.messages import Event
from fedbus.errors import ConnectionLostError
from fedbus.notebook.face import AsyncFederation, Curve, Spec

T = TypeVar("T")
GRACE_S = 5.0


class Federation:
    """A federation as its submitter sees it. All errors are FedbusError."""

    def __init__(self, face: AsyncFederation) -> None:
        self._face = face
        self._loop = _LoopThread()
        self._closed = weakref.finalize(self, _LoopThread.stop, self._loop, face)
        try:
            self._run(face.__aenter__())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a second time changes nothing."""
        self._closed()

    def submit(self, spec: Spec) -> str:
        """Submit a job and return its id. spec: a mapping, a YAML text, or the path of a file.

        Raises JobSpecError with every problem; UnansweredError when it is published and nobody has answered yet.
        """
        return self._run(self._face.submit(spec))

    def jobs(self) -> list[JobLine]:
        """All jobs, oldest first."""
        return self._run(self._face.jobs())

    def job(self, job: str) -> JobDetail:
        """One job with its spec, sites, scores and result."""
        return self._run(self._face.job(job))

    def sites(self) -> list[SiteLine]:
        """All sites that have joined since the aggregator started."""
        return self._run(self._face.sites())

    def history(self, job: str) -> Curve:
        """The curve of a job, one row a version: a DataFrame where pandas is installed, else the lines themselves."""
        return self._run(self._face.history(job))

    def watch(self, job: str) -> Iterator[Event]:
        """What happens in a job, from its submission until it ends; over an outage of the broker, too."""
        events = self._face.watch(job).__aiter__()
        try:
            while (event := self._run(_next(events))) is not None:
                yield event
        finally:
            if self._closed.alive:
                self._run(_end(events))

    def wait(self, job: str) -> JobDetail:
        """The job when it has ended, at once when it has; over an outage of the broker, too."""
        return self._run(self._face.wait(job))

    def get(self, job: str, to: str | Path, version: str | int = "last") -> Fetched:
        """Write the params of a version, `last`, `best` or a number, to a safetensors file."""
        return self._run(self._face.get(job, to, version))

    def abort(self, job: str, reason: str | None = None) -> None:
        """End a job that runs or waits; what it has learnt is exported."""
        self._run(self._face.abort(job, reason))

    def _run(self, question: Coroutine[Any, Any, T]) -> T:
        if not self._closed.alive or self._loop.is_elsewhere:
            question.close()
            why = "belongs to another process (fork)" if self._loop.is_elsewhere else "was closed"
            raise ConnectionLostError(f"this connection {why}: connect again with fedbus.connect()")
        return self._loop.run(question)


class _LoopThread:
    """An event loop in a thread that does not keep the interpreter from ending."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fedbus", daemon=True)
        self._thread.start()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a fork of the process whose thread it is."""
        return os.getpid() != self._pid

    def run(self, question: Coroutine[Any, Any, T]) -> T:
        """Wait for it; what interrupts the wait cancels it, and is raised when it has ended."""
        asked: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(question))
            tasks[0].add_done_callback(lambda task: _settle(task, asked))

        def cancel() -> None:  # after `begin`
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(begin)
        try:
            return asked.result()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)
            wait([asked], GRACE_S)
            raise

    def stop(self, face: AsyncFederation) -> None:
        """Close what is open and end the thread; in that thread itself, where a finalizer may run, without waiting."""
        if self.is_elsewhere:
            return
        ending = asyncio.run_coroutine_threadsafe(self._wind_up(face), self._loop)
        ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        if threading.current_thread() is not self._thread:
            self._thread.join(GRACE_S)

    async def _wind_up(self, face: AsyncFederation) -> None:
        await face.__aexit__()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _settle(task: asyncio.Task[T], asked: Future[T]) -> None:
    """Hand over what a task has come to; one that is cancelled from here was closed under who asked."""
    if task.cancelled():
        asked.set_exception(ConnectionLostError("this connection was closed while it was used"))
    elif (failure := task.exception()) is not None:
        asked.set_exception(failure)
    else:
        asked.set_result(task.result())


async def _next(events: Any) -> Event | None:
    found: Event | None = await anext(events, None)
    return found


async def _end(events: Any) -> None:
    await events.aclose()
