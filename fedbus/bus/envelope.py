"""What travels on the bus, without AMQP: the layer above reads and writes only this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

Headers = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message.

    Outgoing: `message_id` is required, because a publish that failed may have been delivered and will be sent again;
    `user_id` is filled in by the publisher with its login. Headers are flat str and int: streams drop nested ones.
    Incoming: anything may be missing when the sender was no fedbus program; text is then "", `user_id` None. Headers
    of other types are left out. `redelivered` says that somebody may have seen it before. `copied`: its sender asked
    the broker to route it under further keys too (header CC), for which the broker checks no permission.
    `expiration` is how long the broker keeps the message. `refused_bytes` is the length of a body that was longer than
    its reader takes and is not here; 0 for one that is.
    """

    exchange: str
    routing_key: str
    type: str
    body: bytes = field(repr=False)
    message_id: str
    content_type: str = "application/octet-stream"
    headers: Headers = field(default_factory=dict)
    user_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    expiration: timedelta | None = None
    redelivered: bool = False
    copied: bool = False
    refused_bytes: int = 0
