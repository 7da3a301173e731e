"""Start and stop of a daemon: signals set an event, a second signal skips the wait, errors become exit codes.

0  stopped as asked        1  an error that the message explains        2  a setting is wrong
130  stopped at once by a second signal
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from fedbus.errors import FedbusError
from fedbus.runtime.collector import search_as_usual
from fedbus.runtime.process import INTERRUPTED, explain, leave
from fedbus.runtime.streams import guard_daemon

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


def run_daemon(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `main(stop)` until it returns; SIGTERM and SIGINT set `stop`. Returns the exit code."""

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, _on_signal, number, stop)
        await main(stop)

    guard_daemon()
    search_as_usual()
    try:
        asyncio.run(run())
    except BaseExceptionGroup as group:
        leaves = _leaves(group)
        expected = [e for e in leaves if isinstance(e, FedbusError)]
        if len(expected) < len(leaves):
            raise  # a bug among them: its trace must be seen
        return max(explain(error) for error in expected)
    except FedbusError as error:
        return explain(error)
    return 0


def _on_signal(number: int, stop: asyncio.Event) -> None:
    if stop.is_set():
        log.warning("second-signal", signal=signal.Signals(number).name, text="leaving at once")
        os._exit(INTERRUPTED)
    log.info("stopping", signal=signal.Signals(number).name)
    stop.set()


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """While nothing is open and the event loop stands still, for a long import say, a signal ends the process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def until_stopped(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Wait for `stop`, then cancel `tasks`. Meant to be the last words in a daemon's TaskGroup."""
    await stop.wait()
    for task in tasks:
        task.cancel()
