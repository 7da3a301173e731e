"""`/metrics` of a daemon: one page over plain HTTP, answered in the daemon's own event loop.

Bounded, whoever asks whatever: a request has MOST_BYTES and LIMIT to come in, at most AT_ONCE are answered at a time.
Trouble here never ends the daemon: while the port is in use it is said once and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta

import structlog

from fedbus.runtime.metrics import PrometheusMetrics, Sample

MOST_BYTES = 8192
LIMIT = timedelta(seconds=5)
AT_ONCE = 8
RETRY = timedelta(seconds=10)

log = structlog.get_logger()
LookAt = Callable[[], Awaitable[Iterable[Sample]]]
"""Gives the gauges as they are at this moment."""


class MetricsPage:
    """Serves `metrics` on `host:port`; `look` is asked at each scrape."""

    def __init__(
        self, metrics: PrometheusMetrics, *, host: str, port: int, look: LookAt, retry: timedelta = RETRY
    ) -> None:
        self._metrics = metrics
        self._host = host
        self._port = port
        self._look = look
        self._retry_s = retry.total_seconds()
        self._answering = 0

    async def run(self) -> None:
        """Serve for ever."""
        told = False
        while True:
            try:
                server = await asyncio.start_server(self._answer, self._host, self._port, limit=MOST_BYTES)
            except OSError as exc:
                if not told:
                    why = exc.strerror or str(exc)
                    text = f"{self._host}:{self._port}: {why}; the daemon goes on without, and tries again"
                    log.warning("metrics-not-served", text=text, retry_s=self._retry_s)
                told = True
                await asyncio.sleep(self._retry_s)
                continue
            host, port = server.sockets[0].getsockname()[:2]
            log.info("metrics", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
            async with server:
                await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answering += 1
        try:
            async with asyncio.timeout(LIMIT.total_seconds()):
                request = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = await self._reply(request.decode("latin-1"))
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
            )
            writer.write(head.encode() + body)
            async with asyncio.timeout(LIMIT.total_seconds()):
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._answering -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _reply(self, request: str) -> tuple[str, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if self._answering > AT_ONCE:
            return "503 Service Unavailable", plain, b"too many at once\n"
        first, *lines = request.split("\r\n")
        method, _, rest = first.partition(" ")
        if method != "GET":
            return "405 Method Not Allowed", plain, b"only GET\n"
        if rest.partition(" ")[0].partition("?")[0] != "/metrics":
            return "404 Not Found", plain, b"see /metrics\n"
        accept = next((line[7:].strip() for line in lines if line.lower().startswith("accept:")), "")
        try:
            return "200 OK", *await self._page(accept)
        except Exception:  # the daemon must not end for a page
            log.exception("metrics-trouble")
            return "500 Internal Server Error", plain, b"see the daemon's log\n"

    async def _page(self, accept: str) -> tuple[str, bytes]:
        from prometheus_client.exposition import choose_encoder

        self._metrics.sampled(await self._look())
        encode, kind = choose_encoder(accept)
        return kind, await asyncio.to_thread(encode, self._metrics.registry)  # of 200 sites that takes a while
