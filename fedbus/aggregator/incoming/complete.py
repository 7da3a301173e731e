"""Updates of a job that are complete on disk and wait to be decided, in the order in which they became complete.

One that was taken to be decided does not count as waiting any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
from typing import TypeGuard

from fedbus.core.protocol.messages import UpdateId, UpdateKind, UpdateManifest

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
        self._aside: deque[UpdateManifest | Unwanted] = deque()
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
        while not self._aside and not self._items.empty():
            if (item := self._taken(self._items.get_nowait())) is not None:
                self._aside.append(item)
        if not self._aside or not _is_delta(first := self._aside[0]):
            return None
        self._aside.popleft()
        self._count(first, -1)
        return first

    async def get(self) -> Item:
        if self._aside:
            return self.get_nowait()
        item = self._taken(await self._items.get())
        self._count(item, -1)
        return item

    async def get_but_deltas(self) -> Item:
        """The next item that is no update to be folded; those wait on, in order."""
        other: Item = next((item for item in self._aside if not _is_delta(item)), None)
        if other is not None:
            self._aside.remove(other)
        else:
            while (other := self._taken(await self._items.get())) is not None and _is_delta(other):
                self._aside.append(other)
        self._count(other, -1)
        return other

    def get_nowait(self) -> Item:
        item = self._aside.popleft() if self._aside else self._taken(self._items.get_nowait())
        self._count(item, -1)
        return item

    def _taken(self, item: Item) -> Item:
        self._nudged = self._nudged and item is not None
        return item

    def empty(self) -> bool:
        return not self._aside and self._items.empty()

    def waiting(self, site: str) -> int:
        """Updates of a site that wait."""
        return self._waiting[site]

    @property
    def count(self) -> int:
        """How many updates wait."""
        return self._waiting.total()

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


def _is_delta(item: Item) -> TypeGuard[UpdateManifest]:
    return isinstance(item, UpdateManifest) and item.kind is UpdateKind.DELTA
