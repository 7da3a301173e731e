"""A check that hangs is a finding, not a doctor that hangs: each runs in a thread of its own and has a time limit.

The threads are daemon threads: what hangs in the kernel (a name server that is silent, storage that is gone) is left
behind when the process ends.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadline:
    """How long everything may take, in seconds from now."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - self._clock())


class Running(Generic[T]):
    """A call that runs in a thread since it was made."""

    def __init__(self, name: str, call: Callable[[], T]) -> None:
        self._answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._call = call
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._answer.put((self._call(), None))
        except BaseException as exc:  # noqa: BLE001  raised again where the result is asked for
            self._answer.put((None, exc))

    def result(self, within_s: float) -> T:
        """What the call returns or raises; TimeoutError when it does neither in time. To be asked once."""
        try:
            value, error = self._answer.get(timeout=max(0.001, within_s))
        except queue.Empty:
            raise TimeoutError(f"no answer within {within_s:.0f} s") from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where T is


def limited(name: str, call: Callable[[], T], within_s: float) -> T:
    """`call()`, or TimeoutError when it takes longer."""
    return Running(name, call).result(within_s)
