"""Deliveries that are longer than their reader takes are not kept: their bytes are read from the line and let go.

RabbitMQ has no prefetch in bytes, so a reader's memory is as many messages as it asked for, each as long as the broker
allows, whoever sent them. Here it is as many as it asked for, each as long as it takes. aiormq has no such limit; the
one method that puts a body together is replaced on the channel that consumes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiormq.abc import AbstractChannel as RawChannel
from aiormq.abc import DeliveredMessage

REFUSED_BYTES = "x-fedbus-refused-bytes"
"""Header of a delivery whose body was let go: how long it was. What a sender puts there is taken out."""

MostBytes = Callable[[str], int]
"""The longest body of a message of some AMQP type that a reader takes."""


def bound_bodies(channel: RawChannel, most_bytes: MostBytes) -> None:
    """Of everything that `channel` is delivered from now on, keep only bodies that are not longer."""
    whole = channel._read_content  # type: ignore[attr-defined]
    next_frame = channel._Channel__get_content_frame  # type: ignore[attr-defined]

    async def read(frame: Any, header: Any) -> DeliveredMessage:
        properties = header.properties
        headers = dict(properties.headers or {})
        spoofed = headers.pop(REFUSED_BYTES, None) is not None
        size = header.body_size
        if size <= most_bytes(properties.message_type or ""):
            if spoofed:
                properties.headers = headers
            return await whole(frame, header)  # type: ignore[no-any-return]
        left = size
        while left > 0:
            left -= len((await next_frame()).value)
        properties.headers = {**headers, REFUSED_BYTES: size}
        return DeliveredMessage(delivery=frame, header=header, body=b"", channel=channel)

    channel._read_content = read  # type: ignore[attr-defined]
