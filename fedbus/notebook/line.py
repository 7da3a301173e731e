"""The line to the broker behind a federation object: opened when it is needed, and again when it was given up.

A `Client` is one connection, whose end ends whoever entered it. Here that is a task of its own, so that a broker which
is away costs the one question that was asked meanwhile, and the next question connects anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.errors import ConnectionLostError

T = TypeVar("T")


class Line:
    """Of one event loop."""

    def __init__(self, settings: SubmitterSettings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._client: asyncio.Future[Client] | None = None

    async def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Ask over the line. Raises what the question raises, or why there is no line; nothing is asked twice."""
        keeper, client = await self._open()
        asked = asyncio.ensure_future(question(client))
        try:
            await asyncio.wait({asked, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                await _reason(keeper)
        finally:
            if not asked.done():
                asked.cancel()
                await asyncio.wait({asked})
        return asked.result()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        self._closing.set()
        if self._keeper is not None:
            await asyncio.wait({self._keeper})

    async def _open(self) -> tuple[asyncio.Task[None], Client]:
        async with self._opening:
            if self._keeper is None or self._client is None or self._keeper.done():
                self._client = asyncio.get_running_loop().create_future()
                self._keeper = asyncio.create_task(self._keep(self._client), name="line to the broker")
            either: set[asyncio.Future[Any]] = {self._keeper, self._client}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._client.done():
                await _reason(self._keeper)
            return self._keeper, self._client.result()

    async def _keep(self, opened: asyncio.Future[Client]) -> None:
        async with Client(self._settings) as client:
            await client.ready()
            opened.set_result(client)
            await self._closing.wait()


async def _reason(keeper: asyncio.Task[None]) -> None:
    """Raise why there is no line."""
    await keeper
    raise ConnectionLostError("the connection was closed while it was used")
