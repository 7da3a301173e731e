"""A TCP link to the broker that can be cut, silenced, slowed and taken down, in an event loop; and a thread with one.

What passes is bytes; nothing here knows AMQP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from fedbus.bus.url import BrokerUrl
from fedbus.local.interrupts import Interrupted

T = TypeVar("T")

PIECE_BYTES = 65536


class Proxy:
    """Passes connections on to the broker of an AMQP URL, or to a host and port: `target`.

    Use it in one event loop: `up` first, `close` at the end.
    """

    def __init__(self, broker: str | tuple[str, int]) -> None:
        self.target = broker if isinstance(broker, tuple) else _place_of(broker)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gates: set[asyncio.Event] = set()
        self._bytes_per_s: float | None = None
        self._silent = False
        self.passed_bytes = 0

    async def up(self, port: int = 0, *, listening: socket.socket | None = None) -> None:
        """Take connections on 127.0.0.1, or on a socket that listens elsewhere."""
        if listening is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        else:
            self._server = await asyncio.start_server(self._serve, sock=listening)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def url(self, url: str) -> str:
        """The same URL through this link."""
        return BrokerUrl.parse(url).at([("127.0.0.1", self.port)]).with_password()

    def cut(self) -> None:
        """Break every connection at once; new ones are welcome."""
        for writer in self._writers:
            writer.transport.abort()
        for gate in self._gates:
            gate.set()  # what was held back has nowhere to go

    def down(self) -> None:
        """Break every connection and refuse new ones until `up(port)`."""
        self._server.close()
        self.cut()

    def stall(self) -> None:
        """Make every connection half-open: nothing passes any more, nobody is told. New ones work."""
        for gate in self._gates:
            gate.clear()

    def silence(self) -> None:
        """As `stall`, and new connections are silent too, until `resume`."""
        self._silent = True
        self.stall()

    def resume(self) -> None:
        """What was held back passes now."""
        self._silent = False
        for gate in self._gates:
            gate.set()

    def slow(self, bytes_per_s: float | None) -> None:
        """From now on each direction of each connection passes so much; None: as much as comes."""
        self._bytes_per_s = bytes_per_s

    async def close(self) -> None:
        """Break everything and wait until it is gone."""
        self.down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:  # the broker is down, and so is this connection
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        gate = asyncio.Event()
        if not self._silent:
            gate.set()
        self._gates.add(gate)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(PIECE_BYTES):
                await gate.wait()
                self.passed_bytes += len(data)
                if self._bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                sink.write(data)
                await sink.drain()
            await gate.wait()  # a half-open link does not pass on that the other end has gone
        gate.set()
        sink.close()
        self._writers.discard(sink)
        self._gates.discard(gate)


def _place_of(broker: str) -> tuple[str, int]:
    url = BrokerUrl.parse(broker)
    return url.host, url.port


class Backstage:
    """An event loop in a thread of its own: links and mischief go on while the main thread starts processes.

    Leaving it breaks the links that it was given.
    """

    def __enter__(self) -> Self:
        self._links: list[Proxy] = []
        self._services: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="backstage", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def keep(self, service: asyncio.Server) -> None:
        """Close this in the end."""
        self._services.append(service)

    def link(self, broker: str | tuple[str, int], port: int) -> Proxy:
        """A link to the broker that takes connections at `port`."""
        link = Proxy(broker)
        self._links.append(link)
        self.wait(link.up(port))
        return link

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `work` there; its result comes in the future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and return its result."""
        try:
            return self.begin(work).result()
        except RuntimeError as exc:
            # a signal's error that comes while a condition is waited for leaves a lock that is not held: CPython says
            # that instead
            if isinstance(exc.__context__, Interrupted):
                raise exc.__context__ from None
            raise

    async def _end(self) -> None:
        for link in self._links:
            await link.close()
        for service in self._services:
            service.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
