"""Ctrl-C, SIGTERM and a closed terminal as one exception, once, so that cleaning up is never cut short.

While plain code runs the signal raises `Interrupted`; while `run` runs coroutines it cancels them and then raises.
Later signals, and all of them after `shut`, are ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked us to stop; `exit_code` is what a shell would show."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number
        self.exit_code = 128 + number


class Interrupts:
    """Context manager; main thread only. A signal that was ignored when it was entered stays ignored (`nohup`)."""

    def __enter__(self) -> Self:
        self._came: signal.Signals | None = None
        self._shut = False
        self._task: asyncio.Task[Any] | None = None
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def shut(self) -> None:
        """From now on signals are ignored."""
        self._shut = True

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` in an event loop; a signal cancels it and `Interrupted` is raised when it has ended."""

        async def cancellable() -> T:
            self._task = asyncio.current_task()
            return await main

        try:
            return asyncio.run(cancellable())
        finally:
            self._task = None
            if self._came is not None:
                raise Interrupted(self._came)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._shut or self._came is not None:
            return
        self._came = signal.Signals(number)
        if self._task is None:
            raise Interrupted(self._came)
        with contextlib.suppress(RuntimeError):  # the loop has just closed
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
