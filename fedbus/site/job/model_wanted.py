"""A site that holds no version and to which nothing comes asks for a snapshot, again and again, ever more seldom.

Whatever keeps it from the model (a log that lost what it needs, a mistake in where it began to read), others may wait
for this site, and then nothing comes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from fedbus.training.sayable import Sayable

# A record of 8 MiB takes a line of 1 Mbit/s as long as this.
FIRST = timedelta(seconds=70)
LONGEST = timedelta(minutes=20)

log = structlog.get_logger()


class ModelWanted:
    """Of one job; `holds` says whether a version is held, `ask` sends the request with its reason."""

    def __init__(
        self,
        job: str,
        *,
        holds: Callable[[], bool],
        ask: Callable[[Sayable], Awaitable[None]],
        first: timedelta = FIRST,
    ) -> None:
        self._job = job
        self._holds = holds
        self._ask = ask
        self._first = first
        self._records = 0
        self._said: Sayable | None = None

    @property
    def says(self) -> Sayable | None:
        """What people should know of it; None while there is nothing."""
        return None if self._holds() else self._said

    def record_came(self) -> None:
        """Something came from the model log: a large model may be on its way."""
        self._records += 1

    async def watch(self) -> None:
        """Ask whenever it is time, for ever."""
        pause = self._first
        while True:
            before = self._records
            await asyncio.sleep(pause.total_seconds())
            if self._holds():
                pause, self._said = self._first, None
            elif self._records == before:
                reason = Sayable(f"nothing came for {pause.total_seconds():.0f} s and no version is held")
                log.warning("resync", job=self._job, reason=reason)
                self._said = Sayable(f"asked for a snapshot: {reason}")
                await self._ask(reason)
                pause = min(2 * pause, LONGEST)
