"""What bus tests share: quick sessions, a link that can be cut or stalled, envelopes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from fedbus.bus.connection import Backoff, Session
from fedbus.bus.declare import declare
from fedbus.bus.envelope import Envelope
from fedbus.bus.topology import QueueSpec, Topology

QUICKLY = Backoff(first=timedelta(milliseconds=20), most=timedelta(milliseconds=200))

Open = Callable[..., Awaitable[Session]]
Make = Callable[..., Envelope]
Numbered = Callable[..., Iterable[Envelope]]


class Proxy:
    """A TCP link to the broker in this process that a test can cut, stall or take down."""

    def __init__(self, broker: str) -> None:
        target = urlsplit(broker)
        self._target = (target.hostname, target.port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gates: list[asyncio.Event] = []
        self.passed_bytes = 0

    async def up(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def url(self, url: str) -> str:
        return url.replace(f":{urlsplit(url).port}/", f":{self.port}/")

    def cut(self) -> None:
        """Break every connection at once; new ones are welcome."""
        for writer in self._writers:
            writer.transport.abort()

    def down(self) -> None:
        """Break every connection and refuse new ones until `up(port)`."""
        self._server.close()
        self.cut()

    def stall(self) -> None:
        """Make every connection half-open: nothing passes any more, nobody is told. New ones work."""
        for gate in self._gates:
            gate.clear()

    def resume(self) -> None:
        for gate in self._gates:
            gate.set()

    async def close(self) -> None:
        self.down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, up_writer}
        gate = asyncio.Event()
        gate.set()
        self._gates.append(gate)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await gate.wait()
                self.passed_bytes += len(data)
                sink.write(data)
                await sink.drain()
        sink.close()


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
