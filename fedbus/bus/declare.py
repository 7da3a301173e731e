"""Declaring and deleting what `topology` describes. Only the aggregator may; sites never declare anything.

Declare a queue at least a second before it is used: a younger one is lost when a RabbitMQ 3.10 node is killed, with
the messages it has confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fedbus.bus.connection import QUICK, Session
from fedbus.bus.link import Channel
from fedbus.bus.topology import Topology
from fedbus.errors import ConnectionLostError, NoSuchQueueError

T = TypeVar("T")


async def declare(session: Session, topology: Topology) -> None:
    """Declare exchanges, queues and bindings; what exists already with the same settings stays as it is.

    Tries again when the link breaks. Raises BusError when something exists with other settings, LoginError when this
    login may not declare.
    """

    async def all_of_it(channel: Channel) -> None:
        for exchange in topology.exchanges:
            await channel.declare_exchange(exchange.name, exchange.kind)
        for queue in topology.queues:
            await channel.declare_queue(queue.name, dict(queue.arguments))
        for binding in topology.bindings:
            await channel.bind(binding.queue, binding.exchange, binding.key)

    await _until_done(session, all_of_it)


async def delete_queue(session: Session, name: str) -> None:
    """Delete a queue or stream with all it holds; one that does not exist is no error. Raises LoginError."""
    await _until_done(session, lambda channel: channel.delete_queue(name))


async def unbind(session: Session, topology: Topology) -> None:
    """Take bindings away: a publish that only they routed is returned from now on. One that is gone is no error."""

    async def all_of_it(channel: Channel) -> None:
        for binding in topology.bindings:
            await channel.unbind(binding.queue, binding.exchange, binding.key)

    await _until_done(session, all_of_it)


async def ready_messages(session: Session, name: str) -> int:
    """How many messages of a queue wait to be delivered. Raises NoSuchQueueError."""
    return await _until_done(session, lambda channel: channel.messages(name))


async def exists(session: Session, name: str) -> bool:
    """Whether a queue or stream is there."""
    try:
        await ready_messages(session, name)
    except NoSuchQueueError:
        return False
    return True


async def _until_done(session: Session, work: Callable[[Channel], Awaitable[T]]) -> T:
    pauses = QUICK.pauses()
    while True:
        try:
            channel = await session.channel()
            try:
                return await work(channel)
            finally:
                await channel.close()
        except ConnectionLostError:
            await asyncio.sleep(next(pauses))
