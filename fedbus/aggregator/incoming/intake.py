"""From deliveries to complete updates: check, spool, sync, record, acknowledge, in this order.

A chunk is acknowledged only after its bytes are synced and its place is recorded. An update is complete when its
manifest and every chunk are on disk; it then waits to be folded. A second arrival changes nothing. What
breaks the protocol goes to `fedbus.dead` with the reason and is acknowledged, so that it blocks nobody.

Bounded, whoever sends whatever: unacknowledged bytes (`prefetch`), updates begun and their size (`uploads`), updates of
one site that wait to be decided (MAX_WAITING; more are refused). What grows is the ledger, and in memory one id for
each update that was ever complete: about 150 bytes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial

import structlog

from fedbus.aggregator.incoming.admission import admitted, longest_message, update_id_of
from fedbus.aggregator.incoming.complete import Complete, Unwanted
from fedbus.aggregator.incoming.uploads import MAX_PARTIALS, MIB, Upload, Uploads
from fedbus.aggregator.workers import Worker
from fedbus.bus.consumer import Delivery, ack_all
from fedbus.bus.post import Post
from fedbus.core.protocol.answers import Receiving
from fedbus.core.protocol.messages import Chunk, UpdateManifest
from fedbus.core.words import counted
from fedbus.errors import ProtocolError
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.runtime.metrics import RECEIVED_BYTES
from fedbus.runtime.telemetry import Telemetry
from fedbus.runtime.tracing import HEADER, RECEIVE_UPDATE
from fedbus.store.audit_heads import Differing
from fedbus.store.ledger import RECEIVING, SPOOLED, Ledger
from fedbus.store.rows import ChunkRow
from fedbus.store.spool import Spool

# Beside torch there is room for 30 MiB below the promised 300: this, and twice as much for versions on their way out.
PREFETCH_BYTES = 8 * MIB
MAX_WAITING = 64
PARTIAL_TTL = timedelta(hours=1)
SWEEP_S = 1.0
REPEAT_S = 1.0
CROWDED_S = 60.0
# A message that breaks the protocol counts as so many copies: it is kept for people, and no site of ours sends it.
BROKEN = 4

log = structlog.get_logger()

Refuse = Callable[[Delivery, str], Awaitable[None]]
TellId = Callable[[str], Awaitable[None]]
TellDropped = Callable[[str, str], Awaitable[None]]
TellUseless = Callable[[str, int, int], None]
TellDiffering = Callable[[Differing], Awaitable[None]]


def prefetch(chunk_bytes: int) -> int:
    """How many unacknowledged messages the broker may have on their way: PREFETCH_BYTES of chunks, 2 to 64."""
    return max(2, min(64, PREFETCH_BYTES // chunk_bytes))


class Intake:
    """Updates of one job; complete ones are put into `complete`.

    `refuse(delivery, reason)` dead-letters; `repeat(update_id)` is told of decided updates that come again;
    `ask_again(update_id)` of those whose site is to send everything once more; `dropped(site, text)` of uploads that
    nobody goes on with; `useless(login, messages, bytes)` of what came and brings nothing. `most_bytes` says how large
    an update can be, `takes_part(site)` whose updates are looked at. `differs` is told of a site whose audit log is not
    that of the head before.
    """

    def __init__(
        self,
        job: str,
        *,
        chunk_bytes: int,
        most_bytes: Callable[[], int],
        takes_part: Callable[[str], bool],
        ledger: Ledger,
        spool: Spool,
        store: Worker,
        post: Post,
        refuse: Refuse,
        repeat: TellId,
        ask_again: TellId,
        dropped: TellDropped,
        useless: TellUseless,
        complete: Complete,
        partial_ttl: timedelta = PARTIAL_TTL,
        clock: Callable[[], float] = time.monotonic,
        reached: Reached = nothing,
        differs: TellDiffering | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._job = job
        self._differs = differs
        self._telemetry = telemetry or Telemetry()
        self._told_differing: set[str] = set()
        self._ledger = ledger
        self._spool = spool
        self._store = store
        self._admitted = partial(admitted, post=post, job=job, chunk_bytes=chunk_bytes, takes_part=takes_part)
        self._refuse = refuse
        self._repeat = repeat
        self._ask_again = ask_again
        self._dropped = dropped
        self._useless = useless
        self._uploads = Uploads(chunk_bytes=chunk_bytes, most_bytes=most_bytes)
        self._done: set[str] = set()
        self._repeated: dict[str, float] = {}
        self._crowded: Counter[str] = Counter()
        self._crowded_told_at = -math.inf
        self._complete = complete
        self._partial_ttl_s = partial_ttl.total_seconds()
        self._clock = clock
        self._reached = reached
        self.prefetch = prefetch(chunk_bytes)
        self.most_message_bytes = partial(longest_message, chunk_bytes=chunk_bytes)
        self.busy = False
        """Whether deliveries are being written that are neither acknowledged nor complete."""

    async def restore(self) -> None:
        """Take up what an earlier process left: partial updates, and complete ones that were not decided."""
        states = await self._store(self._ledger.update_states, self._job)
        await self._store(self._spool.remove_unknown, self._job, states.keys())
        self._done = {u for u, state in states.items() if state != RECEIVING}
        manifests = {}
        for manifest in await self._store(self._ledger.manifests, self._job, RECEIVING):
            manifests[manifest.update_id] = manifest
        for update_id in states.keys() - self._done:
            lengths = {
                index: length for index, _, length in await self._store(self._ledger.chunks, self._job, update_id)
            }
            self._uploads.restore(update_id, lengths, manifest=manifests.get(update_id), now=self._clock())
        for manifest in await self._store(self._ledger.manifests, self._job, SPOOLED):
            self._complete.put_nowait(manifest)
        await self._record([], [])

    def receiving(self) -> tuple[Receiving, ...]:
        """Who uploads what, and how far it is; the upload that was touched last first."""
        return self._uploads.receiving(self._clock())

    def unfinished(self) -> list[UpdateManifest]:
        """Updates that their sites count as sent although chunks are missing."""
        return self._uploads.unfinished()

    # -------------------------------------------------------------- batches

    async def run(self, deliveries: AsyncIterable[Delivery]) -> None:
        """Take deliveries for as long as they come; what arrives during one sync is the next batch."""
        arrived: asyncio.Queue[Delivery] = asyncio.Queue(self.prefetch)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(deliveries, arrived), name=f"receive {self._job}")
            swept_at = self._clock()
            while True:
                await self._next_batch(arrived)
                if self._clock() - swept_at >= SWEEP_S:
                    swept_at = self._clock()
                    await self.sweep(swept_at)
                await self._complete.room()

    async def _next_batch(self, arrived: asyncio.Queue[Delivery]) -> None:
        """Take everything that is there; return when nothing comes for as long as a sweep may wait."""
        try:
            async with asyncio.timeout(SWEEP_S):
                batch = [await arrived.get()]
        except TimeoutError:
            return
        self.busy = True
        batch += _waiting(arrived)
        rows, manifests = await self._spool_new(batch)
        # what came during that sync is recorded with it: most of the time the manifest of these very chunks
        behind = _waiting(arrived)
        more_rows, more_manifests = await self._spool_new(behind)
        await self._record(rows + more_rows, manifests + more_manifests)
        await self._thin_out()
        await ack_all([*batch, *behind])
        self._reached(Point.ACKED)
        self.busy = False

    async def _spool_new(self, batch: list[Delivery]) -> tuple[list[ChunkRow], list[UpdateManifest]]:
        """Append the chunks of a batch to the spool, synced; returns what is to be recorded of it."""
        new = await self._new(batch)
        chunks = [item for item in new if isinstance(item, Chunk)]
        # spooled and recorded apart, so that a ledger that cannot be written does not make the spool grow with each try
        rows = await self._store(self._spool.append, chunks) if chunks else []
        if chunks:
            self._reached(Point.SPOOLED)
        return rows, [item for item in new if isinstance(item, UpdateManifest)]

    async def _new(self, batch: list[Delivery]) -> list[Chunk | UpdateManifest]:
        """What a batch brings that was not there; what breaks the protocol is refused."""
        now = self._clock()
        new: list[Chunk | UpdateManifest] = []
        repeated: set[str] = set()
        for delivery in batch:
            envelope = delivery.envelope
            useless = 0
            try:
                message = self._admitted(envelope)
                self._telemetry.metrics.add(
                    RECEIVED_BYTES, len(envelope.body), job_id=self._job, site=envelope.user_id or ""
                )
                update_id = update_id_of(message)
                if update_id in self._done:
                    useless = 1
                    repeated |= {update_id} if isinstance(message, UpdateManifest) else set()
                elif self._uploads.add(message, now=now):
                    new.append(message)
                    if isinstance(message, UpdateManifest):
                        self._uploads.came_with(update_id, envelope.headers.get(HEADER))
                else:
                    useless = int(self._uploads.repeats(update_id))
            except ProtocolError as exc:
                useless = BROKEN
                await self._refuse(delivery, str(exc))
            if useless:
                self._useless(envelope.user_id or "", useless, len(envelope.body) + envelope.refused_bytes)
        await self._say_again(repeated, now)
        return new

    async def _say_again(self, repeated: Iterable[str], now: float) -> None:
        """A site that repeats itself is told its receipt again, but not a thousand times a second."""
        for update_id in repeated:
            last = self._repeated.get(update_id)
            if last is None or now - last >= REPEAT_S:
                self._repeated[update_id] = now
                await self._repeat(update_id)

    # -------------------------------------------------------------- disk

    async def _record(self, rows: list[ChunkRow], manifests: list[UpdateManifest]) -> None:
        """Record what is spooled, and which updates are complete by that, in one write; those may then be decided."""
        done = self._uploads.complete()
        if not (rows or manifests or done):
            return
        complete = [(self._job, update_id) for update_id in done]
        differing = await self._store(self._ledger.record_arrivals, rows, manifests, complete=complete, at=time.time())
        self._reached(Point.RECORDED)
        await self._tell_differing(differing)
        if done:
            self._reached(Point.COMPLETE)
        for update_id in done:
            upload = self._uploads.pop(update_id)
            self._trace(upload)
            self._done.add(update_id)
            if upload.manifest is not None:
                reason = upload.problem or self._too_many(upload.site)
                if reason:
                    self._useless(upload.site, upload.chunks + 1, upload.body_bytes)
                self._complete.put_nowait(
                    Unwanted(manifest=upload.manifest, reason=reason) if reason else upload.manifest
                )

    def _trace(self, upload: Upload) -> None:
        """An update was received: from its first message here until it is recorded."""
        began_at = time.time() - (self._clock() - upload.began_at)
        span = self._telemetry.tracing.begin(
            RECEIVE_UPDATE, f"{self._job}/{upload.update_id}", came=upload.traceparent, began_at=began_at
        )
        span.end(body_bytes=upload.body_bytes, chunks=upload.chunks)

    async def _tell_differing(self, differing: Iterable[Differing]) -> None:
        """A site is told of once, however often it sends a head that cannot be."""
        for found in differing:
            if self._differs is not None and found.site not in self._told_differing:
                self._told_differing.add(found.site)
                await self._differs(found)

    def _too_many(self, site: str) -> str:
        if self._complete.waiting(site) < MAX_WAITING:
            return ""
        return f"{site} has {MAX_WAITING} undecided updates already: a site sends one and awaits its receipt"

    # -------------------------------------------------------------- uploads that do not go on

    async def sweep(self, now: float) -> None:
        """Once a second: ask for what is missing, drop what nobody goes on with."""
        for upload in self._uploads.silent(now):
            log.warning("chunks-missing", job=self._job, text=f"{upload.says(now)}: asked for all of it again")
            await self._ask_again(upload.update_id)
        for upload in self._uploads.stale(now, after_s=self._partial_ttl_s):
            text = f"{upload.says(now)}: dropped; the site sends it again when it is back"
            await self._drop(upload)
            await self._dropped(upload.site, text)
        if self._crowded and now - self._crowded_told_at >= CROWDED_S:
            for site, times in self._crowded.items():
                text = f"{site}: {counted(times, 'update')} dropped: it begins more than {MAX_PARTIALS} at once"
                await self._dropped(site, text)
            self._crowded.clear()
            self._crowded_told_at = now
        self._repeated = {u: at for u, at in self._repeated.items() if now - at < REPEAT_S}

    async def _thin_out(self) -> None:
        for upload in self._uploads.crowding():
            if upload.manifest is None:
                await self._drop(upload)
                self._crowded[upload.site] += 1
            else:
                upload.excess = f"{upload.site} has begun more than {MAX_PARTIALS} updates and finished none of them"
        await self._record([], [])

    async def _drop(self, upload: Upload) -> None:
        await self._store(self._forget, upload.update_id)
        self._uploads.forget(upload)

    def _forget(self, update_id: str) -> None:
        # in this order: bytes without rows are removed at the next start, rows without bytes would be read
        self._ledger.forget_updates(self._job, [update_id])
        self._spool.remove(self._job, [update_id])


def _waiting(arrived: asyncio.Queue[Delivery]) -> list[Delivery]:
    """Take everything that is there."""
    return [arrived.get_nowait() for _ in range(arrived.qsize())]


async def _pump(deliveries: AsyncIterable[Delivery], arrived: asyncio.Queue[Delivery]) -> None:
    async for delivery in deliveries:
        await arrived.put(delivery)
