"""Request and reply over RabbitMQ's direct reply-to: no queue is declared, the reply goes straight to the requester."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import structlog
from aio_pika.abc import AbstractIncomingMessage

from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope, Headers
from fedbus.bus.link import Channel
from fedbus.bus.publisher import Publisher
from fedbus.bus.translate import NotTakenError, from_amqp
from fedbus.errors import ConnectionLostError, NoAnswerError, PublishError, UnansweredError

log = structlog.get_logger("fedbus.bus")

REPLY_TO = "amq.rabbitmq.reply-to"


async def request(
    session: Session,
    exchange: str,
    key: str,
    body: bytes,
    *,
    timeout: timedelta | None,
    type: str,
    message_id: str | None = None,
    content_type: str = "application/json",
    headers: Headers | None = None,
) -> Envelope:
    """Publish once and return the reply.

    Raises NoAnswerError after `timeout` (waiting for the link included; None: however long), UnansweredError when the
    broker has confirmed the request by then or before the link broke, UnroutableError and PublishError when the broker
    does not take it, ConnectionLostError when the link breaks meanwhile: it is never sent twice. A `message_id` of the
    caller's lets it ask once more under the same one.
    """
    answer: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
    asked = Envelope(
        exchange=exchange,
        routing_key=key,
        type=type,
        body=body,
        message_id=message_id or uuid.uuid4().hex,
        content_type=content_type,
        headers=headers or {},
        reply_to=REPLY_TO,
        correlation_id=uuid.uuid4().hex,
    )
    confirmed = False
    try:
        async with asyncio.timeout(timeout.total_seconds() if timeout is not None else None):
            channel = await session.channel(confirms=True)
            try:
                await _listen(channel, asked, answer)
                await channel.publish(session.outgoing(asked), user_id=session.login, mandatory=True)
                confirmed = True
                return await answer
            finally:
                await channel.close()
    except NotTakenError as exc:
        raise PublishError(f"{exc}; try again later") from exc
    except ConnectionLostError as exc:
        if not confirmed:
            raise
        raise UnansweredError(f"the link broke after the broker had taken {type} and before it was answered") from exc
    except TimeoutError as exc:
        if confirmed:
            raise UnansweredError(f"nobody answered {_asked_within(asked, timeout)}") from exc
        raise NoAnswerError(_no_answer(session, asked, timeout)) from exc


async def _listen(channel: Channel, asked: Envelope, answer: asyncio.Future[Envelope]) -> None:
    def on_delivery(message: AbstractIncomingMessage) -> None:
        if message.correlation_id == asked.correlation_id and not answer.done():
            answer.set_result(from_amqp(message))

    def on_lost() -> None:
        if not answer.done():
            answer.set_exception(
                ConnectionLostError(f"the link broke before {asked.type} was answered; ask what became of it")
            )
            answer.exception()  # nobody may be waiting any more

    # Replies come without acks: the broker offers direct reply-to only like that.
    await channel.consume(REPLY_TO, prefetch=0, no_ack=True, on_delivery=on_delivery, on_lost=on_lost)


def _asked_within(asked: Envelope, timeout: timedelta | None) -> str:
    return f"{asked.type} on {asked.exchange} {asked.routing_key} {_waited(timeout)}; is the aggregator running?"


def _waited(timeout: timedelta | None) -> str:
    return "in time" if timeout is None else f"within {timeout.total_seconds():.0f} s"


def _no_answer(session: Session, asked: Envelope, timeout: timedelta | None) -> str:
    waited = _waited(timeout)
    if not session.connected:
        return f"no link to the broker {session.url} {waited}; is it running?"
    if session.blocked:
        return (
            f"the broker {session.url} took no messages {waited}: it has a memory or disk alarm; free memory or disk"
            " there (`rabbitmqctl status`, or `fedbus broker status` for a private one), then ask again"
        )
    return f"nobody took or answered {_asked_within(asked, timeout)}"


async def reply(
    publisher: Publisher,
    request: Envelope,
    body: bytes,
    *,
    type: str,
    content_type: str = "application/json",
    headers: Headers | None = None,
) -> bool:
    """Answer a request; False when it wants no answer or names a place that may not be answered to.

    A requester that is gone is no error. Queues of fedbus are no place for replies: a login that may only submit could
    otherwise have the aggregator write into any of them.
    """
    place = request.reply_to
    if not place or place.startswith("fedbus."):
        return False
    envelope = Envelope(
        exchange="",
        routing_key=place,
        type=type,
        body=body,
        message_id=uuid.uuid4().hex,
        content_type=content_type,
        headers=headers or {},
        correlation_id=request.correlation_id,
    )
    try:
        await publisher.publish(envelope, mandatory=False)
    except PublishError as exc:
        log.warning("reply refused", reply_to=place, reason=str(exc))
        return False
    return True
