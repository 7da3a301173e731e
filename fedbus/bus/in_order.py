"""Publishing in order with several messages unconfirmed.

All unconfirmed messages went out on one channel, one behind the other, and the broker takes what comes on a channel in
order: when the link breaks, what it has of them is the beginning. So those that were not confirmed are published again
one at a time, in order, before anything new: a message may arrive twice, and none overtakes another for the first time.
Only when the broker refuses a message and takes the one behind it does that one come first: who must not see this has
one message unconfirmed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from fedbus.bus.envelope import Envelope
from fedbus.errors import BusError

Send = Callable[[Envelope, bool], Awaitable[None]]
"""Publishes a message once; the second argument: whether a queue must take it."""


class Publishing(Protocol):
    """What `Publisher` does for this."""

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None: ...

    async def sender(self) -> Send: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unconfirmed:
    envelope: Envelope
    mandatory: bool
    failed: asyncio.Task[bool]


class InOrder:
    """An async context manager, which leaves what is unconfirmed when it is left by an error or a cancel.

    `done(envelope, error)` is called in order for each message, once it was confirmed (None) or given up.
    """

    def __init__(
        self, publisher: Publishing, *, window: int, done: Callable[[Envelope, Exception | None], None]
    ) -> None:
        self._publisher = publisher
        self._window = window
        self._done = done
        self._unconfirmed: deque[_Unconfirmed] = deque()
        self._send: Send | None = None
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, exc, trace)

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        """Put a message on its way behind all before it; return while at most `window` are unconfirmed."""
        while len(self._unconfirmed) >= self._window:
            await self._confirm_oldest()
        send = await self._sender()
        name = f"publish {envelope.message_id}"
        failed = self._group.create_task(_failed(send, envelope, mandatory), name=name)
        self._unconfirmed.append(_Unconfirmed(envelope=envelope, mandatory=mandatory, failed=failed))

    async def confirmed(self) -> None:
        """Return once every message was confirmed or given up."""
        while self._unconfirmed:
            await self._confirm_oldest()

    async def _sender(self) -> Send:
        # what is unconfirmed must be on one channel
        if self._send is None or not self._unconfirmed:
            try:
                self._send = await self._publisher.sender()
            except BusError:
                self._send = _no_channel
        return self._send

    async def _confirm_oldest(self) -> None:
        oldest = self._unconfirmed[0]
        if not await oldest.failed:
            self._unconfirmed.popleft()
            self._done(oldest.envelope, None)
            return
        held, self._unconfirmed = self._unconfirmed, deque()
        await asyncio.wait([each.failed for each in held])
        for each in held:
            self._done(each.envelope, await self._again(each) if each.failed.result() else None)

    async def _again(self, message: _Unconfirmed) -> Exception | None:
        try:
            await self._publisher.publish(message.envelope, mandatory=message.mandatory)
        except Exception as exc:  # noqa: BLE001 whoever published it decides
            return exc
        return None


async def _failed(send: Send, envelope: Envelope, mandatory: bool) -> bool:
    try:
        await send(envelope, mandatory)
    except Exception:  # noqa: BLE001 it is published again, and says then why it cannot be
        return True
    return False


async def _no_channel(envelope: Envelope, mandatory: bool) -> None:
    raise BusError("there is no channel now")
