"""From deliveries to complete updates: check, spool, sync, record, acknowledge, in this order.

A chunk is acknowledged only after its bytes are synced and its place is recorded. An update is complete when its
manifest and every chunk are on disk; it then waits to be folded. A second arrival changes nothing. What
breaks the protocol goes to `fedbus.dead` with the reason and is acknowledged, so that it blocks nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ParamSpec, TypeVar

import structlog

from fedbus.bus.consumer import Delivery
from fedbus.bus.mail import from_envelope
from fedbus.core import wire
from fedbus.core.messages import Chunk, UpdateId, UpdateManifest
from fedbus.errors import DecodeError, ProtocolError, StoreError
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.store.ledger import RECEIVING, SPOOLED, Ledger
from fedbus.store.spool import Spool
from services.aggregator.workers import Worker

MAX_FRAMES = 1 << 20
FRAME_SLACK_BYTES = 1 << 16
RETRY = timedelta(seconds=2)
KINDS = ("delta", "initial")
# Only that of initial params brings a layout. What a manifest says is kept, told in events and named in refusals.
MAX_MANIFEST_BYTES = 1 << 16

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")
Complete = asyncio.Queue[UpdateManifest | None]
Refuse = Callable[[Delivery, str], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class _Partial:
    """What has arrived of one update."""

    have: set[int] = field(default_factory=set)
    manifest: UpdateManifest | None = None

    @property
    def complete(self) -> bool:
        # more chunks than announced make an update that is refused, not one that its site awaits for ever
        return self.manifest is not None and len(self.have) >= self.manifest.frames


class Intake:
    """Updates of one job.

    `refuse(delivery, reason)` dead-letters, `repeat(update_id)` is told of updates that arrive again, complete ones are
    put into `complete`.
    """

    def __init__(
        self,
        job: str,
        *,
        chunk_bytes: int,
        ledger: Ledger,
        spool: Spool,
        store: Worker,
        refuse: Refuse,
        repeat: Callable[[str], Awaitable[None]],
        complete: Complete,
        retry: timedelta = RETRY,
        reached: Reached = nothing,
    ) -> None:
        self._job = job
        self._max_frame = chunk_bytes + FRAME_SLACK_BYTES
        self._ledger = ledger
        self._spool = spool
        self._store = store
        self._refuse = refuse
        self._repeat = repeat
        self._partial: dict[str, _Partial] = {}
        self._done: set[str] = set()
        self._complete = complete
        self._retry_s = retry.total_seconds()
        self._reached = reached
        self.busy = False
        """Whether deliveries are being written that are neither acknowledged nor complete."""

    async def restore(self) -> None:
        """Take up what an earlier process left: partial updates, and complete ones that were not decided."""
        states = await self._store(self._ledger.update_states, self._job)
        self._done = {u for u, state in states.items() if state != RECEIVING}
        manifests = {}
        for text in await self._store(self._ledger.manifests, self._job, RECEIVING):
            manifest = parse_manifest(text)
            manifests[manifest.update_id] = manifest
        for update_id, state in states.items():
            if state == RECEIVING:
                places = await self._store(self._ledger.chunks, update_id)
                partial = _Partial(have={i for i, _, _ in places}, manifest=manifests.get(update_id))
                self._partial[update_id] = partial
        for text in await self._store(self._ledger.manifests, self._job, SPOOLED):
            self._complete.put_nowait(parse_manifest(text))
        await self._complete_updates([u for u, p in self._partial.items() if p.complete])

    def receiving(self) -> dict[str, int]:
        """Chunks that have arrived of each update that is not complete."""
        return {update_id: len(partial.have) for update_id, partial in self._partial.items()}

    async def run(self, deliveries: AsyncIterable[Delivery]) -> None:
        """Take deliveries for as long as they come; what arrives during one sync is the next batch."""
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(deliveries, arrived), name=f"receive {self._job}")
            while True:
                batch = [await arrived.get()]
                self.busy = True
                while not arrived.empty():
                    batch.append(arrived.get_nowait())
                await self._take(batch)
                for delivery in batch:
                    await delivery.ack()
                self._reached(Point.ACKED)
                self.busy = False

    async def _take(self, batch: list[Delivery]) -> None:
        chunks: list[Chunk] = []
        manifests: list[UpdateManifest] = []
        for delivery in batch:
            try:
                message = self._checked(delivery)
            except ProtocolError as exc:
                await self._refuse(delivery, str(exc))
                continue
            transfer = message.transfer if isinstance(message, Chunk) else message.update_id
            if transfer in self._done:
                if isinstance(message, UpdateManifest):
                    await self._repeat(transfer)
            elif isinstance(message, Chunk):
                chunks.append(message)
            else:
                manifests.append(message)
        touched = list(self._note(chunks, manifests))
        await self._keep(touched)
        await self._complete_updates(list(dict.fromkeys(t for t, _ in touched)))

    def _checked(self, delivery: Delivery) -> Chunk | UpdateManifest:
        message = from_envelope(delivery.envelope)
        match message:
            case Chunk():
                transfer = message.transfer
                if message.part != "update" or message.count > MAX_FRAMES or len(message.body) > self._max_frame:
                    raise ProtocolError(
                        f"chunk of part {message.part!r}, count {message.count}, {len(message.body)} bytes: expected an"
                        f" update of at most {MAX_FRAMES} chunks of {self._max_frame} bytes"
                    )
            case UpdateManifest():
                transfer = message.update_id
                if not 0 < message.frames <= MAX_FRAMES or message.kind not in KINDS:
                    raise ProtocolError(
                        f"update manifest of kind {message.kind!r} with {message.frames} frames: expected one of"
                        f" {', '.join(KINDS)} and 1 to {MAX_FRAMES} frames"
                    )
                if message.kind == "delta" and len(delivery.envelope.body) > MAX_MANIFEST_BYTES:
                    raise ProtocolError(
                        f"update manifest of {len(delivery.envelope.body)} bytes: expected at most {MAX_MANIFEST_BYTES}"
                    )
            case _:
                raise ProtocolError(f"message {type(message).__name__} does not belong on the updates queue")
        try:
            site = UpdateId.parse(transfer).site
        except ValueError as exc:
            raise DecodeError(str(exc)) from exc
        if message.job != self._job or site != delivery.envelope.user_id:
            raise ProtocolError(
                f"update {transfer} of job {message.job} came from login {delivery.envelope.user_id!r} on the queue of"
                f" {self._job}: site, login and job must agree"
            )
        return message

    def _note(
        self, chunks: list[Chunk], manifests: list[UpdateManifest]
    ) -> Iterator[tuple[str, Chunk | UpdateManifest]]:
        """Remember what is new, and yield it; repeats are dropped here."""
        for chunk in chunks:
            partial = self._partial.setdefault(chunk.transfer, _Partial())
            if chunk.index not in partial.have:
                partial.have.add(chunk.index)
                yield chunk.transfer, chunk
        for manifest in manifests:
            partial = self._partial.setdefault(manifest.update_id, _Partial())
            if partial.manifest is None:
                partial.manifest = manifest
                yield manifest.update_id, manifest

    async def _when_there_is_room(self, write: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A full disk pauses consumption: nothing is acknowledged, nothing is lost, the broker holds what comes."""
        while True:
            try:
                return await self._store(write, *args, **kwargs)
            except StoreError as exc:
                log.error("spool-paused", job=self._job, error=str(exc), retry_s=self._retry_s)
                await asyncio.sleep(self._retry_s)

    async def _keep(self, touched: list[tuple[str, Chunk | UpdateManifest]]) -> None:
        # two steps, so that a ledger that cannot be written does not make the spool grow with every try
        chunks = [item for _, item in touched if isinstance(item, Chunk)]
        rows = await self._when_there_is_room(self._spool.append, chunks) if chunks else []
        self._reached(Point.SPOOLED)
        manifests = [
            (u, self._job, UpdateId.parse(u).site, wire.encode(item).body.decode())
            for u, item in touched
            if isinstance(item, UpdateManifest)
        ]
        if rows or manifests:
            await self._when_there_is_room(self._ledger.record_arrivals, rows, manifests, at=time.time())
            self._reached(Point.RECORDED)

    async def _complete_updates(self, candidates: list[str]) -> None:
        done = [u for u in candidates if u in self._partial and self._partial[u].complete]
        if not done:
            return
        await self._when_there_is_room(self._ledger.mark_spooled, done, at=time.time())
        self._reached(Point.COMPLETE)
        for update_id in done:
            manifest = self._partial.pop(update_id).manifest
            self._done.add(update_id)
            if manifest is not None:
                self._complete.put_nowait(manifest)


async def _pump(deliveries: AsyncIterable[Delivery], arrived: asyncio.Queue[Delivery]) -> None:
    """The consumer's prefetch bounds what waits here."""
    async for delivery in deliveries:
        arrived.put_nowait(delivery)


def parse_manifest(text: str) -> UpdateManifest:
    """Read a manifest back from the ledger."""
    message = wire.decode("update", {"schema": wire.SCHEMA}, text.encode())
    if not isinstance(message, UpdateManifest):
        raise DecodeError("the ledger holds a manifest that is none")
    return message
