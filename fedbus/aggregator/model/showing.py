"""Whole models in a job's model log, each under a number of its own, for sites to score: the best version at the end
of a training, or models that are given.

A site scores the newest model that it holds, so what is to be scored is shown anew, under the next number, whenever
something else was shown last. The numbers are those that the ledger has as published, so that no number comes twice.
"""

from __future__ import annotations

import time

from fedbus.aggregator.model.given import Whole
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.aggregator.tools import Tools
from fedbus.core.protocol.messages import SNAPSHOT


class Showing:
    """Of one job."""

    def __init__(self, job: str, *, log: ModelLogWriter, tools: Tools) -> None:
        self._job = job
        self._log = log
        self._tools = tools
        self._shown: tuple[int, Whole] | None = None
        self._whats: dict[int, int] = {}

    async def last_number(self) -> int:
        """The newest number in the model log; -1: none."""
        return int(await self._tools.store(self._tools.ledger.last_published, self._job))

    async def show(self, whole: Whole, *, what: int) -> None:
        """Put a model into the log; `what` is what the caller calls it."""
        number = await self.last_number() + 1
        await self._publish(number, whole)
        self._shown, self._whats[number] = (number, whole), what

    def what(self, number: int) -> int | None:
        """What was shown under a number; None: nothing by this process."""
        return self._whats.get(number)

    def number(self, what: int) -> int | None:
        """The newest number under which this was shown; None: it was not, by this process."""
        return max((number for number, shown in self._whats.items() if shown == what), default=None)

    async def again(self) -> bool:
        """Show what was shown last once more, for a site that cannot follow; False when nothing was."""
        if self._shown is not None:
            await self._publish(*self._shown)
        return self._shown is not None

    async def _publish(self, number: int, whole: Whole) -> None:
        tools = self._tools
        outgoing = await tools.compute(whole.snapshot, number)
        part = await self._log.send(number, SNAPSHOT, outgoing.frames, count=outgoing.count, compute=tools.compute)
        await self._log.finish(number, digest=await tools.compute(whole.digest), delta=None, snapshot=part)
        mark = tools.ledger.mark_published
        await tools.store(mark, self._job, number, at=time.time(), chain=self._log.chain)
