"""What bus tests share: quick sessions, a link that can be cut or stalled, envelopes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from fedbus.bench.chaos.proxy import Proxy
from fedbus.bus.connection import Backoff, Session
from fedbus.bus.declare import declare
from fedbus.bus.envelope import Envelope
from fedbus.bus.topology import QueueSpec, Topology

QUICKLY = Backoff(first=timedelta(milliseconds=20), most=timedelta(milliseconds=200))

Open = Callable[..., Awaitable[Session]]
Make = Callable[..., Envelope]
Numbered = Callable[..., Iterable[Envelope]]


@pytest.fixture
async def proxy(vhost: Any) -> AsyncIterator[Proxy]:
    link = Proxy(vhost.url("aggregator"))
    await link.up()
    yield link
    await link.close()


@pytest.fixture
async def open_session(vhost: Any) -> AsyncIterator[Open]:
    """Opens sessions with a quick back-off that are closed after the test, and waits until they are up."""
    async with AsyncExitStack() as stack:

        async def make(url: str | None = None, **settings: Any) -> Session:
            settings = {"name": "test", "backoff": QUICKLY} | settings
            session = await stack.enter_async_context(Session(url or vhost.url("aggregator"), **settings))
            await session.ready()
            return session

        yield make


@pytest.fixture
async def proxied(proxy: Proxy, vhost: Any, open_session: Open) -> Session:
    """A session through the proxy."""
    return await open_session(proxy.url(vhost.url("aggregator")))


@pytest.fixture
async def queue(vhost: Any) -> str:
    """A quorum queue of this test's virtual host that nothing else writes to."""
    return await _declared(vhost, "fedbus.test.queue", {"x-queue-type": "quorum"})


@pytest.fixture
async def stream(vhost: Any) -> str:
    arguments = {"x-queue-type": "stream", "x-max-length-bytes": 400_000_000}
    return await _declared(vhost, "fedbus.test.stream", arguments)


async def _declared(vhost: Any, name: str, arguments: dict[str, str | int]) -> str:
    async with Session(vhost.url("aggregator"), name="declare", backoff=QUICKLY) as session:
        await declare(session, Topology(queues=(QueueSpec(name=name, arguments=arguments),)))
    return name


@pytest.fixture
def envelope() -> Make:
    """Makes envelopes for a queue, through the default exchange, with ids that count up."""
    numbers = itertools.count()

    def make(queue: str, body: bytes = b"x", **fields: Any) -> Envelope:
        number = next(numbers)
        fields = {"exchange": "", "type": "chunk", "message_id": f"m{number}"} | fields
        return Envelope(routing_key=queue, body=body, **fields)

    return make
