"""The socket under a connection: how many bytes have moved on it, and its end by force.

aio_pika shows neither. A slow line and a half-open one look the same to it, silent; the kernel knows better, because it
sees each byte that the other end acknowledges or sends.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

import aio_pika
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory

if TYPE_CHECKING:
    from yarl import URL

# struct tcp_info of Linux (4.1 and later): bytes_acked and bytes_received, each u64
_MOVED = struct.Struct("<120xQQ")


class Transport(TransportFactory):
    """Opens the socket of one connection and keeps it at hand."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Called once by aiormq, which owns the streams."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **kwargs)
        return reader, self._writer

    def moved_bytes(self) -> int:
        """Bytes that the other end has acknowledged or sent so far; 0 where the kernel does not say."""
        return sum(self._moved())

    def sent_bytes(self) -> int:
        """Bytes that the other end has acknowledged so far; 0 where the kernel does not say."""
        return self._moved()[0]

    def _moved(self) -> tuple[int, int]:
        sock = None if self._writer is None else self._writer.get_extra_info("socket")
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return 0, 0
        try:
            acked, received = _MOVED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MOVED.size))
        except (OSError, struct.error):  # closed, or an old kernel
            return 0, 0
        return int(acked), int(received)

    def abort(self) -> None:
        """Close the socket at once; what is unsent is lost."""
        if self._writer is not None:
            self._writer.transport.abort()


class Connection(aio_pika.Connection):
    """A connection of aio_pika on a transport of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.socket = Transport()
        self.kwargs["transport_factory"] = self.socket

    def __del__(self) -> None:
        """Nothing: links close their connections. aio_pika would need an event loop in whatever thread collects."""
