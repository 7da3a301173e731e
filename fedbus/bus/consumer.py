"""Consuming: deliveries from one queue, acked by hand, until the caller stops asking. Losses are bridged in silence.

The broker's callback only hands off into an inbox; work done inside it would be cancelled with the channel. What lies
in the inbox of a lost channel is dropped, because the broker delivers it again. The inbox needs no bound of its own:
the broker never has more than `prefetch` deliveries unacked, each at most as long as its reader takes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog
from aio_pika.abc import AbstractIncomingMessage
from pamqp.common import Arguments

from fedbus.bus.bounded import MostBytes
from fedbus.bus.connection import HEARTBEAT, QUICK, Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.link import Channel
from fedbus.bus.topology import MAX_MESSAGE_BYTES
from fedbus.bus.translate import from_amqp, translated
from fedbus.errors import ConnectionLostError, NameTakenError

log = structlog.get_logger("fedbus.bus")

# A daemon that restarts finds its old consumer gone within milliseconds, unless its host died.
NAME_GRACE_AT_START = timedelta(seconds=5)
# After a cut the old connection may be half-open: the broker gives it up after 3 heartbeats.
NAME_GRACE_AFTER_LOSS = HEARTBEAT * 3.5


class Delivery:
    """One message that waits for `ack` or `reject`, exactly one of them."""

    __slots__ = ("_message", "channel", "envelope")

    def __init__(self, message: AbstractIncomingMessage, channel: Channel) -> None:
        self.envelope: Envelope = from_amqp(message)
        self.channel = channel
        self._message = message

    async def ack(self, *, and_before: bool = False) -> None:
        """Done with it, or with it and all that came before it on its channel.

        On a channel that was lost meanwhile this does nothing: the message comes again.
        """
        await self._settle("ack", self._message.ack(multiple=and_before))

    async def reject(self, *, requeue: bool = False) -> None:
        """Refuse it: to the dead-letter exchange of its queue, or back into the queue. Never raises for a lost link."""
        await self._settle("reject", self._message.reject(requeue=requeue))

    async def _settle(self, what: str, call: Awaitable[None]) -> None:
        try:
            with translated(what):
                await call
        except ConnectionLostError:
            log.debug("settled too late", what=what, message_id=self.envelope.message_id)


async def ack_all(deliveries: Iterable[Delivery]) -> None:
    """Done with these, in one word to the broker; of what came before them on their channels nothing may be undone."""
    newest = {delivery.channel: delivery for delivery in deliveries}
    for delivery in newest.values():
        await delivery.ack(and_before=True)


class Attachment:
    """One consumer on a channel of its own, until the channel is lost."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self._lost = False

    @classmethod
    async def open(
        cls,
        session: Session,
        queue: str,
        *,
        prefetch: int,
        exclusive: bool = False,
        arguments: Arguments = None,
        most_bytes: MostBytes | None = None,
    ) -> Attachment:
        """Consume `queue` on a new channel.

        Raises ConnectionLostError, NoSuchQueueError, LoginError, and NameTakenError without any grace.
        """
        channel = await session.channel()
        attachment = cls(channel)
        try:
            if exclusive and await channel.consumers(queue):
                raise NameTakenError(f"{queue} is consumed by another connection")
            await channel.consume(
                queue,
                prefetch=prefetch,
                on_delivery=attachment._inbox.put_nowait,
                on_lost=attachment._lose,
                arguments=arguments,
                most_bytes=most_bytes,
            )
            # Two may have counted zero at the same moment: then both withdraw, and their jittered pauses part them.
            if exclusive and await channel.consumers(queue) > 1:
                raise NameTakenError(f"{queue} was taken by another connection at the same moment")
        except BaseException:  # cancelled, too: a slow line makes a joiner give up waiting for silence
            await channel.close()
            raise
        return attachment

    def _lose(self) -> None:
        self._lost = True
        self._inbox.put_nowait(None)

    async def next(self) -> AbstractIncomingMessage:
        """The next message. Raises ConnectionLostError when the consumer is no more, even if some lie in the inbox."""
        message = None if self._lost else await self._inbox.get()
        if message is None or self._lost:
            raise ConnectionLostError("the consumer was lost")
        return message

    async def close(self) -> None:
        """Stop; what was not acked goes back to the queue."""
        await self.channel.close()


class Consumer:
    """Deliveries of one queue: `async with Consumer(...) as deliveries: async for delivery in deliveries: ...`.

    With `exclusive` this must be the only consumer; iteration raises NameTakenError when another one stays for longer
    than the grace (5 s at the start, 3.5 heartbeats after a loss, when it may be our own half-open connection).
    Quorum queues ignore AMQP's exclusive flag (seen on 3.10), so consumers are counted before and after attaching.
    Iteration raises NoSuchQueueError and LoginError when the queue is not there or may not be read.
    Memory is `prefetch` times `most_bytes` (a number, or one by the message's type); a delivery that is longer comes
    without its body and says so, see `Envelope.refused_bytes`.
    """

    def __init__(
        self,
        session: Session,
        queue: str,
        *,
        prefetch: int,
        most_bytes: int | MostBytes = MAX_MESSAGE_BYTES,
        exclusive: bool = False,
        grace_at_start: timedelta = NAME_GRACE_AT_START,
        grace_after_loss: timedelta = NAME_GRACE_AFTER_LOSS,
    ) -> None:
        self._session = session
        self._queue = queue
        self._prefetch = prefetch
        self._most_bytes: MostBytes = (lambda _: most_bytes) if isinstance(most_bytes, int) else most_bytes
        self._exclusive = exclusive
        self._grace = grace_at_start
        self._grace_after_loss = grace_after_loss
        self._attachment: Attachment | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._detach()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while True:
            attachment = await self.attached()
            try:
                return Delivery(await attachment.next(), attachment.channel)
            except ConnectionLostError as exc:
                log.debug("consume again", queue=self._queue, reason=str(exc))
                await self._detach()

    async def attached(self) -> Attachment:
        """Attach now, not only when the first delivery is asked for; raises what iteration raises."""
        pauses = QUICK.pauses()
        while self._attachment is None:
            try:
                self._attachment = await self._attach()
                self._grace = self._grace_after_loss
            except ConnectionLostError as exc:
                log.debug("consume again", queue=self._queue, reason=str(exc))
                await asyncio.sleep(next(pauses))
        return self._attachment

    async def _attach(self) -> Attachment:
        now = asyncio.get_running_loop().time
        deadline, pauses = math.inf, self._session.backoff.pauses()
        while True:
            try:
                return await Attachment.open(
                    self._session,
                    self._queue,
                    prefetch=self._prefetch,
                    exclusive=self._exclusive,
                    most_bytes=self._most_bytes,
                )
            except NameTakenError as exc:
                # the grace is for the other one to go, not for a broker that is away to come back
                deadline = min(deadline, now() + self._grace.total_seconds())
                pause = next(pauses)
                if now() + pause > deadline:
                    raise NameTakenError(
                        f"{exc}: a second daemon runs under the same name; stop it or choose another name "
                        f"(waited {self._grace.total_seconds():.0f} s for it to go)"
                    ) from exc
                log.warning("name taken", queue=self._queue, pause_s=round(pause, 1))
                await asyncio.sleep(pause)

    async def _detach(self) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            await attachment.close()
