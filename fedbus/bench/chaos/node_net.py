"""The network between the nodes of a broker on one machine: a link from every node to every other, which can be cut.

A node of RabbitMQ finds its peers by asking epmd, Erlang's name service, on a port of its own choice. So every node
gets a service of its own, which answers truly but for its peers: their ports are those of links. No privilege is
needed, and the nodes are the real ones. Protocol: Erlang's "Distribution Protocol", section "EPMD Protocol".
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable
from contextlib import suppress

from fedbus.bench.chaos.proxy import Backstage, Proxy
from fedbus.broker.process import free_port

HOST = "127.0.0.1"
ALIVE2, ALIVE2_X, PORT_PLEASE2, PORT2, NAMES = 120, 118, 122, 119, 110
NODE_TYPE, VERSIONS = 77, (6, 5)
MOST_BYTES = 4096


class NodeNet:
    """Name services and links of the nodes with these names (before the '@'), in an event loop backstage."""

    def __init__(self, backstage: Backstage, names: tuple[str, ...]) -> None:
        self._backstage = backstage
        self._creations = itertools.count(1)
        self._registered: dict[str, int] = {}
        self._links = {
            (one, other): backstage.link((HOST, 1), free_port()) for one in names for other in names if one != other
        }
        self.ports = tuple(self._begin(name) for name in names)

    def _begin(self, name: str) -> int:
        port = free_port()
        service = self._backstage.wait(asyncio.start_server(lambda r, w: self._serve(name, port, r, w), HOST, port))
        self._backstage.keep(service)
        return port

    # -------------------------------------------------------------- what can be done to a node

    def cut(self, name: str) -> None:
        """Break the links between a node and all others, and refuse new ones: both sides know at once."""
        self._on_links(name, Proxy.down)

    def mend(self, name: str) -> None:
        """Take connections between it and the others again."""
        for link in self._of(name):
            self._backstage.wait(link.up(link.port))

    def silence(self, name: str) -> None:
        """Let nothing pass between a node and all others; nobody is told."""
        self._on_links(name, Proxy.silence)

    def resume(self, name: str) -> None:
        """What was held back has no use any more: connections are made anew."""

        def anew(link: Proxy) -> None:
            link.cut()
            link.resume()

        self._on_links(name, anew)

    def _of(self, name: str) -> list[Proxy]:
        return [link for pair, link in self._links.items() if name in pair]

    def _on_links(self, name: str, change: Callable[[Proxy], None]) -> None:
        async def in_loop() -> None:
            for link in self._of(name):
                change(link)

        self._backstage.wait(in_loop())

    # -------------------------------------------------------------- the name service of one node

    async def _serve(self, name: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, struct.error, UnicodeDecodeError):
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            request = await reader.readexactly(min(length, MOST_BYTES))
            match request[0]:
                case tag if tag == ALIVE2:
                    await self._register(request, reader, writer)
                case tag if tag == PORT_PLEASE2:
                    writer.write(self._place(name, request[1:].decode()))
                case tag if tag == NAMES:
                    known = "".join(f"name {each} at port {at}\n" for each, at in self._registered.items())
                    writer.write(struct.pack(">I", port) + known.encode())
        writer.close()

    async def _register(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A name lives as long as its connection."""
        (port,), (length,) = struct.unpack(">H", request[1:3]), struct.unpack(">H", request[9:11])
        name = request[11 : 11 + length].decode()
        self._registered[name] = port
        writer.write(struct.pack(">BBI", ALIVE2_X, 0, next(self._creations)))
        try:
            await reader.read()
        finally:
            if self._registered.get(name) == port:
                del self._registered[name]

    def _place(self, asking: str, name: str) -> bytes:
        port = self._registered.get(name)
        if port is None:
            return struct.pack(">BB", PORT2, 1)
        if link := self._links.get((asking, name)):
            link.target = (HOST, port)
            port = link.port
        place = struct.pack(">BBHBBHHH", PORT2, 0, port, NODE_TYPE, 0, *VERSIONS, len(name))
        return place + name.encode() + struct.pack(">H", 0)
