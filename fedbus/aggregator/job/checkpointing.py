"""Checkpoints of one job, written on a thread of their own while updates are folded.

No copy of the model is made: a checkpoint holds what only a commit changes (see `GlobalModel.state`). So folding goes
on meanwhile, and a commit waits until all of it is read, which the operating system's memory takes; not until the disk
has it. At most one checkpoint is written at a time.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from fedbus.aggregator.model.keeper import ModelKeeper, Saving
from fedbus.aggregator.tools import Tools
from fedbus.runtime.faults import Point


class Checkpointing:
    """`run` as a task; what was begun is written by it."""

    def __init__(self, keeper: ModelKeeper, *, tools: Tools) -> None:
        self._keeper = keeper
        self._tools = tools
        self._begun: asyncio.Queue[Saving] = asyncio.Queue()
        self._read = asyncio.Event()
        self._read.set()
        self._written = asyncio.Event()
        self._written.set()
        self._written_at = time.monotonic()

    def due(self, *, now: float) -> bool:
        """Whether none is under way and the last one is old enough."""
        return self._written.is_set() and now - self._written_at >= self._tools.checkpoint_interval_s

    async def begin(self, *, version: int, fact_seq: int) -> None:
        """Begin a checkpoint of the newest version. Only with an empty buffer, and when none is under way."""
        self._tools.reached(Point.BEFORE_CHECKPOINT)
        saving = await self._tools.compute(self._keeper.begin_save, version=version, fact_seq=fact_seq)
        self._read.clear()
        self._written.clear()
        self._begun.put_nowait(saving)

    async def read(self) -> None:
        """Wait until the model may change again."""
        await self._read.wait()

    async def written(self) -> None:
        """Wait until what was begun is durable."""
        await self._written.wait()

    async def run(self) -> None:
        """Write what is begun, for ever. Raises StoreError when it cannot be written; a full disk is waited out."""
        loop = asyncio.get_running_loop()
        read = partial(loop.call_soon_threadsafe, self._read.set)
        while True:
            saving = await self._begun.get()
            await self._tools.saving(saving.write, read=read)
            self._written_at = time.monotonic()
            self._read.set()
            self._written.set()
            self._tools.reached(Point.CHECKPOINT_DONE)
