"""Updates of a job that are complete on disk and wait to be decided, in the order in which they became complete.

One that was taken to be decided does not count as waiting any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from fedbus.core.messages import UpdateId, UpdateManifest

# Whoever fills the line waits above that: what waits is kept in memory.
MOST_WAITING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted:
    """An update that is to be refused without a look at its body, so that its site is told."""

    manifest: UpdateManifest
    reason: str


Item = UpdateManifest | Unwanted | None
"""None: a nudge, something other than an update happened."""


class Complete:
    """The line; filled by the intake, worked off by the runner and, at the end of the job, by its closing."""

    def __init__(self, *, most: int = MOST_WAITING) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._waiting: Counter[str] = Counter()
        self._most = most
        self._room = asyncio.Event()
        self._room.set()

    def put_nowait(self, item: Item) -> None:
        self._count(item, 1)
        self._items.put_nowait(item)

    async def get(self) -> Item:
        item = await self._items.get()
        self._count(item, -1)
        return item

    def get_nowait(self) -> Item:
        item = self._items.get_nowait()
        self._count(item, -1)
        return item

    def empty(self) -> bool:
        return self._items.empty()

    def waiting(self, site: str) -> int:
        """Updates of a site that wait."""
        return self._waiting[site]

    async def room(self) -> None:
        """Wait while too many wait."""
        await self._room.wait()

    def _count(self, item: Item, by: int) -> None:
        if item is None:
            return
        manifest = item.manifest if isinstance(item, Unwanted) else item
        site = UpdateId.parse(manifest.update_id).site
        self._waiting[site] += by
        if not self._waiting[site]:
            del self._waiting[site]
        if self._waiting.total() < self._most:
            self._room.set()
        else:
            self._room.clear()
