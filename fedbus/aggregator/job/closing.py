"""The end of a job: what its updates queue still holds is refused on record, then queue and model log are deleted.

A site counts an update as safe once the broker has confirmed it, so a confirmed update is never thrown away together
with the queue: it is decided like any other, and its site can be told.

    close    from now on the broker returns a publish to its site instead of confirming it
    drain    every complete update is refused, with a receipt, until the queue is empty and stays so
    clear    queue, model log and bodies are deleted

A kill in between is harmless: a restart finds the job ended and not cleared, and does all of it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from fedbus.aggregator.incoming.complete import Complete, Unwanted
from fedbus.aggregator.incoming.entrance import Entrance
from fedbus.aggregator.incoming.intake import Intake
from fedbus.aggregator.job.verdicts import refuse
from fedbus.aggregator.model import bodies
from fedbus.aggregator.model.log import stream_of
from fedbus.aggregator.tools import Tools
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import delete_queue, ready_messages
from fedbus.core.protocol import messages as m
from fedbus.store.spool import Spool


class Closing:
    """Closing of one job that has ended; `state` says how.

    quiet: what was routed before the entrance was closed is in the queue within milliseconds; after so long without
    anything new nothing more comes.
    """

    def __init__(
        self,
        job: str,
        *,
        state: Callable[[], m.JobState],
        entrance: Entrance,
        tools: Tools,
        spool: Spool,
        session: Session,
        quiet: timedelta,
    ) -> None:
        self._job = job
        self._state = state
        self._entrance = entrance
        self._tools = tools
        self._spool = spool
        self._session = session
        self._quiet = quiet

    async def drain(self, complete: Complete, intake: Intake) -> None:
        """Refuse what comes into `complete` until the updates queue, which `intake` works off, stays empty."""
        await self._entrance.close()
        while True:
            try:
                async with asyncio.timeout(self._quiet.total_seconds()):
                    item = await complete.get()
            except TimeoutError:
                if not intake.busy and not await ready_messages(self._session, t.updates_queue(self._job)):
                    break
                continue
            if item is not None:
                await self._refuse(item.manifest if isinstance(item, Unwanted) else item)
        for manifest in intake.unfinished():  # confirmed to its site, and chunks of it were lost with a broker
            await self._refuse(manifest)

    async def _refuse(self, manifest: m.UpdateManifest) -> None:
        await refuse(manifest, f"the job is {self._state()}", tools=self._tools, drop=self._drop)

    def _drop(self, update_id: str) -> None:
        bodies.delete(self._job, [update_id], ledger=self._tools.ledger, spool=self._spool)

    async def clear(self) -> None:
        """Nothing of an ended job is needed any more but its facts, its checkpoints and its export."""
        await delete_queue(self._session, t.updates_queue(self._job))
        for stream in {await stream_of(self._job, self._tools), t.models_stream(self._job)}:
            await delete_queue(self._session, stream)
        await self._tools.store(bodies.clear, self._job, ledger=self._tools.ledger, spool=self._spool)
