"""A job's updates on their way out: outbox → lane, each until the broker has confirmed it.

Entries stay in the outbox until their receipt. What the broker does not take, and what cannot be read for want of
room, is tried again after a pause; what may never leave is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

import structlog

from fedbus.core.protocol import messages as m
from fedbus.errors import DiskFullError, PublishError, StoreError, WithheldError
from fedbus.runtime.faults import Point, Reached
from fedbus.runtime.metrics import LOCAL_UPDATES, SEND_S, SENT_BYTES
from fedbus.runtime.telemetry import Telemetry
from fedbus.runtime.tracing import SEND_UPDATE
from fedbus.site.door import Lane, load_of
from fedbus.store.outbox import Entry, Outbox
from fedbus.training.sayable import Sayable

UNSENT_PAUSE_S = 10.0

log = structlog.get_logger()


class Uploads:
    """Of one job. `on_withheld` is told why an update may never leave: there will be no other that may."""

    def __init__(
        self,
        job: str,
        *,
        outbox: Outbox,
        lane: Lane,
        on_withheld: Callable[[Sayable], Awaitable[None]],
        telemetry: Telemetry,
        reached: Reached,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._job = job
        self._outbox = outbox
        self._lane = lane
        self._on_withheld = on_withheld
        self._telemetry = telemetry
        self._reached = reached
        self._sleep = sleep
        self._unsent: asyncio.Queue[m.UpdateId] = asyncio.Queue()
        self._in_hand: set[m.UpdateId] = set()

    def committed(self, update_id: m.UpdateId) -> None:
        """An update was put into the outbox."""
        self._reached(Point.SITE_COMMITTED)
        self._send_later(update_id)

    def send_again(self) -> None:
        """Send what awaits its receipt; the aggregator repeats a receipt that was lost."""
        for update_id in self._outbox.waiting:
            self._send_later(update_id)

    def send_all_of(self, update_id: m.UpdateId) -> None:
        """The aggregator misses chunks. On a slow line it asks while they are still on their way."""
        if self._outbox.entry(update_id) is not None and update_id not in self._in_hand:
            log.info("update-asked-for-again", job=self._job, update=str(update_id))
            self._send_later(update_id)

    async def run(self) -> None:
        """Send for ever."""
        while True:
            update_id = await self._unsent.get()
            entry = self._outbox.entry(update_id)
            if entry is None or await self._sent(entry):
                self._in_hand.discard(update_id)
            else:
                self._unsent.put_nowait(update_id)

    def _send_later(self, update_id: m.UpdateId) -> None:
        self._in_hand.add(update_id)
        self._unsent.put_nowait(update_id)

    async def _sent(self, entry: Entry) -> bool:
        """False, after a pause, when the broker does not take it."""
        try:
            await self._send(entry)
        except PublishError as exc:
            # the queue goes with the job, and being told of its end may take longer
            update = str(entry.update_id)
            log.warning("update-unsent", job=self._job, update=update, error=str(exc), retry_s=UNSENT_PAUSE_S)
            await self._sleep(UNSENT_PAUSE_S)
            return False
        except DiskFullError as exc:
            log.error("disk-full", job=self._job, error=str(exc), retry_s=UNSENT_PAUSE_S)
            await self._sleep(UNSENT_PAUSE_S)
            return False
        except WithheldError as exc:
            await self._withhold(entry, Sayable(exc.said))
        except StoreError:
            if self._outbox.entry(entry.update_id) is not None:
                raise
            # its receipt came while it was sent again, and took its file away
            log.info("update-decided-meanwhile", job=self._job, update=str(entry.update_id))
        return True

    async def _withhold(self, entry: Entry, why: Sayable) -> None:
        """What may never leave is deleted; where it is an update, there will be no other that may."""
        log.error("update-withheld", job=self._job, update=str(entry.update_id), text=why)
        self._outbox.remove(entry.update_id)
        if entry.manifest.kind is m.UpdateKind.DELTA:
            self._telemetry.metrics.add(LOCAL_UPDATES, job_id=self._job, outcome="withheld")
        if entry.manifest.kind is not m.UpdateKind.LOCAL:
            await self._on_withheld(why)

    async def _send(self, entry: Entry) -> None:
        manifest = entry.manifest
        seal = self._lane.seal(manifest, entry.key)
        await self._lane.admit(manifest, await asyncio.to_thread(load_of, entry, seal))
        began = perf_counter()
        log.info("update-publishing", job=self._job, update=str(entry.update_id))
        span = self._telemetry.tracing.begin(SEND_UPDATE, f"{self._job}/{entry.update_id}")
        sent_bytes = await self._lane.send_chunks(self._chunks(entry), seal=seal)
        self._reached(Point.SITE_BEFORE_MANIFEST)
        await self._lane.send(manifest)
        span.end(body_bytes=sent_bytes)
        self._telemetry.metrics.add(SENT_BYTES, sent_bytes, job_id=self._job)
        self._telemetry.metrics.observe(SEND_S, perf_counter() - began, job_id=self._job)
        self._reached(Point.SITE_CONFIRMED)
        log.info(
            "update-published",
            job=self._job,
            update=str(entry.update_id),
            base_version=manifest.base_version,
            body_bytes=manifest.body_bytes,
            train_s=round(manifest.effort.seconds, 3),
            data_wait_s=round(manifest.effort.data_wait_s, 3),
            publish_s=round(perf_counter() - began, 3),
        )

    def _chunks(self, entry: Entry) -> Iterator[m.Chunk]:
        for index, frame in enumerate(entry.frames()):
            yield m.Chunk(
                job=self._job,
                transfer=str(entry.update_id),
                part="update",
                index=index,
                count=len(entry.frame_bytes),
                body=frame,
            )
            self._reached(Point.SITE_BETWEEN_CHUNKS)
