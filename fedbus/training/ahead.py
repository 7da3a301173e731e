"""Things made before they are asked for, by a thread of its own: what training would otherwise wait for.

torch keeps its number of threads per thread, so the maker's is set to that of whoever opened it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Calls `make` again and again until `most` results wait; leaving the context ends that, and waits for it."""

    def __init__(self, make: Callable[[], Made], *, most: int) -> None:
        self._make = make
        self._ready: queue.Queue[Made | _Failed] = queue.Queue(maxsize=most)
        self._ended = threading.Event()
        self._threads = torch.get_num_threads()
        self._maker = threading.Thread(target=self._run, name="fedbus-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._maker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(queue.Empty):  # a maker that waits for room finds it, and then that it has ended
            while True:
                self._ready.get_nowait()
        self._maker.join()

    def next(self) -> Made:
        """Wait for the next result; what `make` raised is raised here, in its turn."""
        found = self._ready.get()
        if isinstance(found, _Failed):
            raise found.error
        return found

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while not self._ended.is_set():
            try:
                found: Made | _Failed = self._make()
            except BaseException as exc:  # noqa: BLE001 - raised again where the result is asked for; SystemExit too
                found = _Failed(exc)
            self._ready.put(found)
            if isinstance(found, _Failed):
                return


class _Failed:
    """What `make` raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
