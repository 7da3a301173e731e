"""Lines of the messages that leave a site: one each; of a kind that leaves often, one an hour.

Status messages are such a kind from the first on, any other above MOST_SINGLE an hour, whoever makes the site say them.
An hour's line is durable before its first message leaves, and says how many have left since the line before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedbus.audit.writer import Audit
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.store.audit_kinds import Kind

TO = "aggregator"
HOUR_S = 3600.0
MOST_SINGLE = 200
_STATUS = wire.NAMES[m.SiteStatus]


@dataclass(slots=True, kw_only=True)
class _Hour:
    """Of one kind of message, until a time: how many left; of those that have no line of their own, how many, bytes."""

    until: float
    often: bool
    messages: int = 0
    untold: int = 0
    untold_bytes: int = 0


class MessageLines:
    """Of one site. `clock`: seconds that never fall."""

    def __init__(self, audit: Audit, clock: Callable[[], float], *, most_single: int = MOST_SINGLE) -> None:
        self._audit = audit
        self._clock = clock
        self._most_single = most_single
        self._hours: dict[str, _Hour] = {}
        self._turning = asyncio.Lock()

    async def leaves(self, message: str, size_bytes: int, facts: Mapping[str, object]) -> None:
        """Return when a line that covers this message is durable."""
        async with self._turning:
            hour = await self._hour(message)
            hour.messages += 1
            if hour.often:
                hour.untold += 1
                hour.untold_bytes += size_bytes
                return
        await self._audit.write(Kind.MESSAGE_LEAVES, message=message, to=TO, bytes=size_bytes, **facts)

    async def _hour(self, message: str) -> _Hour:
        before, now = self._hours.get(message), self._clock()
        if before is not None and now < before.until:
            if not before.often and before.messages >= self._most_single:
                await self._write(message, before)
                before.often = True
            return before
        busy = before is not None and before.messages >= self._most_single
        hour = _Hour(until=now + HOUR_S, often=busy or message == _STATUS)
        if hour.often or (before is not None and before.often):
            await self._write(message, before or hour)
        self._hours[message] = hour
        return hour

    async def _write(self, message: str, hour: _Hour) -> None:
        await self._audit.write(Kind.MESSAGES_LEAVE, **_taken(message, hour))

    def close(self) -> None:
        """Nothing is said any more."""
        for message, hour in self._hours.items():
            if hour.untold:
                self._audit.note(Kind.MESSAGES_LEAVE, **_taken(message, hour))


def _taken(message: str, hour: _Hour) -> dict[str, object]:
    facts: dict[str, object] = {"message": message, "to": TO, "messages": hour.untold, "bytes": hour.untold_bytes}
    hour.untold = hour.untold_bytes = 0
    return facts
