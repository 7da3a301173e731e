"""What a login may do, asked of the broker without doing it: nothing is published, no message is taken or held.

A broker checks permissions before it looks at the rest of what is asked. So each question is asked in a form that it
refuses in any case, and only the reason of the refusal counts:

    publish   with the user id of somebody else     "user_id property set to": allowed, were the user id right
    consume   with a priority that is no number     "invalid arg": allowed, were the priority a number
    both      ACCESS_REFUSED                        not allowed
              NOT_FOUND                             allowed, but there is no such exchange or queue

Each question ends its channel, and leaves a line in the broker's log that names `USER_ID`.
"""

from __future__ import annotations

import uuid
from enum import StrEnum

from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.errors import BusError

USER_ID = "fedbus doctor asks"
"""No login can have a name with spaces in it (`check_name`): nothing can be published by asking."""


class Permission(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    MISSING = "missing"
    TOO_LARGE = "too large"


async def may_publish(session: Session, exchange: str, key: str, *, size_bytes: int = 0) -> Permission:
    """Whether this login may publish there. Raises BusError when the broker's answer is another one."""
    asked = Envelope(
        exchange=exchange, routing_key=key, type="question", body=bytes(size_bytes), message_id=uuid.uuid4().hex
    )
    channel = await session.channel(confirms=True)
    try:
        await channel.publish(asked, user_id=USER_ID, mandatory=True)
    except BusError as exc:
        return _answer(exc, refused_for="user_id")
    finally:
        await channel.close()
    raise BusError(f"the broker took a message with the user id {USER_ID!r}, which is not this login's")


async def may_read(session: Session, queue: str) -> Permission:
    """Whether this login may consume the queue. Raises BusError when the broker's answer is another one."""
    channel = await session.channel()
    try:
        await channel.consume(
            queue,
            prefetch=1,
            on_delivery=lambda message: None,
            on_lost=lambda: None,
            arguments={"x-priority": "a question"},
        )
    except BusError as exc:
        return _answer(exc, refused_for="arg")
    finally:
        await channel.close()
    raise BusError(f"the broker let {queue} be consumed with a priority that is no number")


def _answer(refusal: BusError, *, refused_for: str) -> Permission:
    said = str(refusal)
    match refusal.__cause__:
        case ChannelAccessRefused():
            return Permission.REFUSED
        case ChannelNotFoundEntity():
            return Permission.MISSING
        case ChannelPreconditionFailed() if "message size" in said:
            return Permission.TOO_LARGE
        case ChannelPreconditionFailed() if refused_for in said:
            return Permission.ALLOWED
    raise refusal
