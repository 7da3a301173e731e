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
        self._first: Item = None
        self._waiting: Counter[str] = Counter()
        self._most = most
        self._room = asyncio.Event()
        self._room.set()
        self._nudged = False

    def put_nowait(self, item: Item) -> None:
        if item is None:
            if self._nudged:
                return  # whoever takes the one that waits looks at everything
            self._nudged = True
        self._count(item, 1)
        self._items.put_nowait(item)

    def next_delta(self) -> UpdateManifest | None:
        """The next item if it is an update to be folded, None otherwise; nudges before it are dropped."""
        while self._first is None and not self._items.empty():
            self._first = self._taken(self._items.get_nowait())
        if not isinstance(self._first, UpdateManifest) or self._first.kind != "delta":
            return None
        manifest, self._first = self._first, None
        self._count(manifest, -1)
        return manifest

    async def get(self) -> Item:
        if self._first is not None:
            return self.get_nowait()
        item = self._taken(await self._items.get())
        self._count(item, -1)
        return item

    def get_nowait(self) -> Item:
        item = self._first if self._first is not None else self._taken(self._items.get_nowait())
        self._first = None
        self._count(item, -1)
        return item

    def _taken(self, item: Item) -> Item:
        self._nudged = self._nudged and item is not None
        return item

    def empty(self) -> bool:
        return self._first is None and self._items.empty()

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
