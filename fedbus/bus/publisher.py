"""Publishing: persistent, mandatory, confirmed; what is not confirmed is sent again under the same message id.

A publish that failed or timed out may have been delivered, so a message can arrive twice: ids and their dedupe are the
receiver's duty. A broker that refuses a message closes the channel, and every unconfirmed publish on it gets the same
error; a refused message is therefore tried once more alone on a channel of its own before it counts as refused.

A broker that was restarted takes connections before its streams are back (half a second on 3.10), and returns what is
for them as unroutable: on a link that is younger than `routes_return` that is no reason to give up. Updates of a site
never do: it may be held off for a while, and goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta

import structlog

from fedbus.bus.connection import QUICK, Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.link import Channel
from fedbus.bus.translate import NotTakenError, RefusedError
from fedbus.errors import ConnectionLostError, PublishError, UnroutableError

log = structlog.get_logger("fedbus.bus")

# 16 x 1 MiB fill a line of 1 Gbit/s at 40 ms; more only costs memory.
WINDOW = 16
ROUTES_RETURN = timedelta(seconds=15)
TOLD_FROM_S = 2.0


class Publisher:
    """Publishes on one channel of a session, opened when needed and again after a loss.

    gate: awaited before every attempt, also those after a loss; what it raises ends the publish.
    """

    def __init__(
        self,
        session: Session,
        *,
        routes_return: timedelta = ROUTES_RETURN,
        gate: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._gate = gate
        self._session = session
        self._routes_return_s = routes_return.total_seconds()
        self._opening = asyncio.Lock()
        self._shared: Channel | None = None

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        """Return when the broker has taken the message durably, however long the link is down or the queue full.

        Raises UnroutableError when no queue takes it (not with `mandatory=False`), PublishError when the broker refuses
        it: no permission, no such exchange, too large.
        """
        pauses, quick_pauses = self._session.backoff.pauses(), QUICK.pauses()
        while True:
            try:
                return await self._attempt(envelope, mandatory)
            except ConnectionLostError as exc:
                log.debug("publish again", message_id=envelope.message_id, reason=str(exc))
                await asyncio.sleep(next(quick_pauses))
            except UnroutableError as exc:
                if self._session.link_age_s > self._routes_return_s:
                    raise
                pause = next(quick_pauses)
                say = log.debug if pause < TOLD_FROM_S else log.warning
                say("publish waits", message_id=envelope.message_id, reason=str(exc), pause_s=round(pause, 1))
                await asyncio.sleep(pause)
            except NotTakenError as exc:
                pause = next(pauses)
                log.warning("publish waits", message_id=envelope.message_id, reason=str(exc), pause_s=round(pause, 1))
                await asyncio.sleep(pause)

    async def publish_many(
        self, envelopes: Iterable[Envelope] | AsyncIterable[Envelope], *, window: int = WINDOW
    ) -> int:
        """Publish all with at most `window` unconfirmed, and return the sum of their body bytes once all are confirmed.

        `envelopes` is advanced only when there is room in the window, so memory is bounded by `window` bodies (the
        sockets copy them up to four times). Messages may overtake each other. Raises like `publish`, at the first
        refusal; others of the window may then have been delivered.
        """
        room = asyncio.Semaphore(window)
        total_bytes = 0

        async def one(envelope: Envelope) -> None:
            try:
                await self.publish(envelope)
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as group:
                async for envelope in _each(envelopes):
                    await room.acquire()
                    total_bytes += len(envelope.body)
                    group.create_task(one(envelope), name=f"publish {envelope.message_id}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return total_bytes

    async def sender(self) -> Callable[[Envelope, bool], Awaitable[None]]:
        """Return what publishes on the channel that is open now, each message once: see `in_order`."""
        channel = await self._channel()

        async def send(envelope: Envelope, mandatory: bool) -> None:
            await channel.publish(self._session.outgoing(envelope), user_id=self._session.login, mandatory=mandatory)

        return send

    async def _attempt(self, envelope: Envelope, mandatory: bool) -> None:
        channel = await self._channel()
        if self._gate is not None:
            await self._gate()
        try:
            await channel.publish(self._session.outgoing(envelope), user_id=self._session.login, mandatory=mandatory)
        except RefusedError:
            await self._attempt_alone(envelope, mandatory)

    async def _attempt_alone(self, envelope: Envelope, mandatory: bool) -> None:
        channel = await self._session.channel(confirms=True)
        try:
            if self._gate is not None:
                await self._gate()
            await channel.publish(self._session.outgoing(envelope), user_id=self._session.login, mandatory=mandatory)
        except RefusedError as exc:
            raise PublishError(str(exc)) from exc
        finally:
            await channel.close()

    async def _channel(self) -> Channel:
        async with self._opening:
            if self._shared is None or self._shared.closed:
                self._shared = await self._session.channel(confirms=True)
            return self._shared


async def _each(envelopes: Iterable[Envelope] | AsyncIterable[Envelope]) -> AsyncIterator[Envelope]:
    if isinstance(envelopes, AsyncIterable):
        async for envelope in envelopes:
            yield envelope
    else:
        for envelope in envelopes:
            yield envelope
