"""How often and how long a site tries again: one failure after the other, with pauses that grow.

What may pass (a folder that is mounted later, a GPU that others use) is tried again for `patience_s`; what fedbus
itself knows to be final is not. Decisions and the pause itself; what is said of a failure is the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

FEWEST_FAILURES = 5
"""Below that no site gives up, however short its patience is."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What follows from a failure: how many there are in a row, whether that is all, else the pause before the next."""

    failures: int
    fatal: bool
    pause_s: float


class Attempts:
    """Of one job. `sleep` is asyncio's."""

    def __init__(self, *, patience_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._patience_s = patience_s
        self._sleep = sleep
        self._failures = 0
        self._failing_since = 0.0
        self._pausing: asyncio.Task[None] | None = None

    def failed(self, *, final: bool, now: float) -> Failed:
        """One more failure, which is the last when it is `final` or when patience is over."""
        self._failing_since = self._failing_since if self._failures else now
        self._failures += 1
        patience_is_over = now - self._failing_since >= self._patience_s
        return Failed(
            failures=self._failures,
            fatal=final or (self._failures >= FEWEST_FAILURES and patience_is_over),
            pause_s=min(FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_S),
        )

    def succeeded(self) -> None:
        """Patience is whole again."""
        self._failures = 0

    async def pause(self, pause_s: float) -> None:
        """Sleep, unless there is a reason to try at once, see `end_pause`."""
        self._pausing = asyncio.ensure_future(self._sleep(pause_s))
        try:
            await asyncio.wait({self._pausing})
        finally:
            self.end_pause()
            self._pausing = None

    def end_pause(self) -> None:
        """Try at once."""
        if self._pausing is not None:
            self._pausing.cancel()
