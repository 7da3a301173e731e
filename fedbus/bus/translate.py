"""aio_pika on one side, fedbus on the other: the only place that translates its errors and messages.

    what the broker or aio_pika says                       becomes
    connection or channel gone, no answer in time          ConnectionLostError     try again on a new channel
    negative confirm (queue full, reject-publish)          NotTakenError           try again later
    returned as unroutable                                 UnroutableError         final
    channel closed: access refused, too large, bad user    RefusedError            final, if it was alone on its channel
    channel closed: no such queue                          NoSuchQueueError        final
    channel closed: other arguments than declared          BusError           final

aiormq ends pending calls of a connection that it closes with CancelledError, although nobody cancelled the caller;
`translated` tells the two apart by `Task.cancelling()`. Of a channel that is closed without a reason it ends them with
a bare Exception, see `nameless`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
)
from aio_pika.exceptions import PublishError as ReturnedError
from aiormq.exceptions import ChannelAccessRefused

from fedbus.bus.bounded import REFUSED_BYTES
from fedbus.bus.envelope import Envelope
from fedbus.errors import BusError, ConnectionLostError, LoginError, NoSuchQueueError, PublishError, UnroutableError

COPY_HEADERS = frozenset({"CC", "BCC"})


class NotTakenError(PublishError):
    """The broker confirmed negatively: the queue is full, for now. Never leaves the bus."""


class RefusedError(PublishError):
    """The broker closed the channel because of a publish; perhaps another one on the same channel."""


@contextmanager
def translated(what: str, *, publishing: bool = False) -> Iterator[None]:
    """Turn errors of aio_pika inside the block into those of the table above; `what` names what was tried."""
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionLostError(f"{what}: the connection was closed meanwhile") from exc
    except ReturnedError as exc:
        raise UnroutableError(f"{what}: no queue takes it (the broker returned it as unroutable)") from exc
    except DeliveryError as exc:
        raise NotTakenError(f"{what}: the queue takes no more for now (negative confirm)") from exc
    except ChannelClosed as exc:
        raise _closed(what, exc, publishing) from exc
    except TimeoutError as exc:
        raise ConnectionLostError(f"{what}: the broker did not answer in time") from exc
    except (AMQPError, ChannelInvalidStateError, OSError, RuntimeError) as exc:
        raise ConnectionLostError(f"{what}: {reason(exc)}") from exc
    except Exception as exc:
        if not nameless(exc):
            raise
        raise ConnectionLostError(f"{what}: the channel was closed meanwhile") from exc


def nameless(exc: BaseException) -> bool:
    """Whether this is how aiormq ends what waits for something that is closed without a reason."""
    return type(exc) is Exception


_OTHER_LOGIN = "; the broker URL needs a login that may (FEDBUS_BROKER_URL)"


def _closed(what: str, exc: ChannelClosed, publishing: bool) -> BusError:
    says = reason(exc)
    match exc:
        case ChannelAccessRefused() if publishing:
            return RefusedError(f"{what}: the broker refused it: {says}{_OTHER_LOGIN}")
        case ChannelPreconditionFailed() | ChannelNotFoundEntity() if publishing:
            return RefusedError(f"{what}: the broker refused it: {says}")
        case ChannelAccessRefused():
            return LoginError(f"{what}: this login may not do that: {says}{_OTHER_LOGIN}")
        # "no queue" is final; the broker also answers NOT_FOUND while a queue's process is being restarted.
        case ChannelNotFoundEntity() if "no queue" in says or "no exchange" in says:
            return NoSuchQueueError(f"{what}: {says}")
        case ChannelPreconditionFailed() if "inequivalent arg" in says:
            return BusError(f"{what}: it exists with other settings; delete it first, or keep the settings: {says}")
        case _:
            return ConnectionLostError(f"{what}: {says}")


def reason(exc: BaseException) -> str:
    """The words of an error of aio_pika, without class names and number tuples."""
    words = [str(arg) for arg in exc.args if arg is not None and not isinstance(arg, int)]
    return "; ".join(words) or type(exc).__name__


def to_amqp(envelope: Envelope, user_id: str) -> Message:
    """A persistent AMQP message; its body is not copied."""
    return Message(
        envelope.body,
        headers=dict(envelope.headers),
        content_type=envelope.content_type,
        delivery_mode=DeliveryMode.PERSISTENT,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expiration=envelope.expiration,
        message_id=envelope.message_id,
        type=envelope.type,
        user_id=user_id,
    )


def from_amqp(message: AbstractIncomingMessage) -> Envelope:
    """What arrived, body not copied."""
    expiration = message.expiration
    refused_bytes = message.headers.get(REFUSED_BYTES, 0)
    return Envelope(
        exchange=message.exchange or "",
        routing_key=message.routing_key or "",
        type=message.type or "",
        body=message.body,
        message_id=message.message_id or "",
        content_type=message.content_type or "",
        headers={
            key: value
            for key, value in message.headers.items()
            if isinstance(value, str | int) and key != REFUSED_BYTES
        },
        user_id=message.user_id,
        reply_to=message.reply_to,
        correlation_id=message.correlation_id,
        expiration=timedelta(seconds=expiration) if isinstance(expiration, int | float) else None,
        redelivered=bool(message.redelivered),
        copied=not COPY_HEADERS.isdisjoint(message.headers),
        refused_bytes=refused_bytes if isinstance(refused_bytes, int) and not message.body else 0,
    )
