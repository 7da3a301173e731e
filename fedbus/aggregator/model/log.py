"""Writing the model log: chunks first, confirmed, then the manifest alone, so that a joiner finds it last.

A part of any size costs IN_FLIGHT_BYTES, and as many in the connection: frames are made on the compute thread while
nothing is sent, then sent while none are made, because the two at once on two threads took longer.

A snapshot goes with every version that makes it worth while: the first, every `snapshot_every` versions, or when the
deltas since the last one are REPLAY_MODELS times as large as a snapshot, so that a joiner never reads much more.

Where there is a kit, a version says the SHA-256 of its frames and its place in the chain of versions, see
`core.protocol.chain`. Without one there is nobody to sign it, and hashing costs a third of what sending does.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.workers import Worker
from fedbus.audit.writer import Audit, NoAudit
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import ModelLogSize, models_stream, new_models_stream
from fedbus.core.protocol.chain import chain_of
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import SNAPSHOT, Chunk, Part, Receipt, VersionManifest
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.store.audit_kinds import Kind
from fedbus.trust.epochs import MANIFEST, EpochKey, PartSeal

if TYPE_CHECKING:
    from hashlib import _Hash

# Fills a line of 1 Gbit/s at 60 ms. Twice as much was no faster here, and memory is what is scarce beside torch.
IN_FLIGHT_BYTES = 8 << 20
REPLAY_MODELS = 4
MOST_VERSIONS = 64
# Each site is also told by itself, and again when it asks: a flood of refusals must not make a version too long to go.
MOST_RECEIPTS = 1000


async def stream_of(job: str, tools: Tools, *, readers: str = "") -> str:
    """The name of a job's model log: the one that the ledger keeps, else a new one that it keeps from now on.

    A job that an earlier release has begun keeps the name that its sites know. `readers`: the end of a new name, which
    says who may read it.
    """
    kept = await tools.store(tools.ledger.model_log, job)
    if kept is not None:
        return str(kept)
    begun = await tools.store(tools.ledger.last_published, job) >= 0
    name = models_stream(job) if begun else new_models_stream(job, readers)
    return str(await tools.store(tools.ledger.name_model_log, job, name))


class ModelLogWriter:
    """Publishes versions of one job."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        layout: Layout,
        publisher: Publisher,
        *,
        post: Post,
        stream: str = "",
        chained: tuple[int, str] | None = None,
        epochs: Epochs | None = None,
        reached: Reached = nothing,
        audit: Audit | None = None,
    ) -> None:
        """`chained`: the newest version that has a chain, and that chain; None: versions say no hash and no chain.

        `epochs`: what records are sealed in; None: they are not sealed.
        """
        self.stream = stream
        """Its name, to be told to the sites of the job only; "" for that of earlier releases."""
        self._chained = chained
        self._epochs = epochs
        self._epoch: EpochKey | None = None
        self._job = job
        self._layout: dict[str, Any] = layout.to_dict()
        self._publisher = publisher
        self._post = post
        self._reached = reached
        self._audit = audit or NoAudit()
        self._every = snapshot_every(spec) or MOST_VERSIONS
        self._window = max(2, IN_FLIGHT_BYTES // spec.chunk_bytes)
        self._since_bytes = 0
        self._snapshot_bytes = 4 * layout.numel
        self._snapshot_version = -1
        self._snapshot_at = 0.0
        self._snapshot_back = 0

    @staticmethod
    def size(spec: JobSpec, layout: Layout) -> ModelLogSize:
        """How much the stream must keep for a joiner to find the newest snapshot and all after it."""
        snapshot_bytes = 4 * layout.numel
        asked = snapshot_every(spec)
        every = min(asked or MOST_VERSIONS, MOST_VERSIONS)
        period_bytes = every * snapshot_bytes if asked else (REPLAY_MODELS + 1) * snapshot_bytes
        return ModelLogSize(snapshot_bytes=snapshot_bytes, delta_bytes=-(-period_bytes // every), snapshot_every=every)

    @property
    def chain(self) -> str:
        """That of the version published last; "" where versions say none."""
        return "" if self._chained is None else self._chained[1]

    def wants_snapshot(self, version: int) -> bool:
        """Whether this version should bring a snapshot along."""
        return (
            self._snapshot_version < 0
            or version - self._snapshot_version >= self._every
            or self._since_bytes >= REPLAY_MODELS * self._snapshot_bytes
            or (self._epochs is not None and self._epochs.want_snapshot)
        )

    async def send(self, version: int, part: str, frames: Iterator[bytes], *, count: int, compute: Worker) -> Part:
        """Publish the `count` frames of a version's delta or snapshot, made by `compute`; all are confirmed then."""
        began_at = time.time()
        sent = body_bytes = 0
        hasher = None if self._chained is None else hashlib.sha256()
        seal = await self._seal(version, part)
        while batch := await compute(_some_of, frames, hasher):
            first = Chunk(job=self._job, transfer=str(version), part=part, index=sent, count=count, body=b"")
            sent += len(batch)
            body_bytes += sum(map(len, batch))
            await self._publisher.publish_many(self._chunks(batch, first, seal), window=self._window)
        if part == SNAPSHOT:
            self._snapshot_version, self._snapshot_at, self._since_bytes = version, began_at, 0
            self._snapshot_back = sent
        else:
            self._since_bytes += body_bytes
            self._snapshot_back += sent
        return Part(frames=sent, body_bytes=body_bytes, sha256="" if hasher is None else hasher.hexdigest())

    async def _seal(self, version: int, part: str) -> PartSeal | None:
        """What seals a part, with a salt of its own; all parts of a version, its manifest too, are of one epoch."""
        if self._epochs is None:
            return None
        if self._epoch is None:
            self._epoch = await self._epochs.for_version()
        return PartSeal(self._epoch, job=self._job, version=version, part=part)

    def _chunks(self, batch: deque[bytes], first: Chunk, seal: PartSeal | None) -> Iterator[Envelope]:
        for index in range(first.index, first.index + len(batch)):
            body = batch.popleft()  # so that it goes when it is confirmed
            yield self._post.to_model_log(replace(first, index=index, body=body), seal=seal)
            self._reached(Point.BETWEEN_CHUNKS)

    async def finish(
        self,
        version: int,
        *,
        digest: str,
        delta: Part | None,
        snapshot: Part | None,
        receipts: tuple[Receipt, ...] = (),
    ) -> int:
        """Publish the manifest of a version whose parts were sent, and return their bytes; now it is there for sites.

        The manifest names the newest MOST_RECEIPTS of `receipts`.
        """
        if self._chained is not None and version > self._chained[0]:
            before = self._chained[1]
            chain = chain_of(before, job=self._job, version=version, digest=digest, delta=delta, snapshot=snapshot)
            self._chained = version, chain
        manifest = VersionManifest(
            job=self._job,
            version=version,
            digest=digest,
            delta=delta,
            snapshot=snapshot,
            snapshot_version=self._snapshot_version,
            snapshot_at=self._snapshot_at,
            snapshot_back=self._snapshot_back if self._snapshot_version >= 0 else 0,
            receipts=receipts[-MOST_RECEIPTS:],
            layout=self._layout if snapshot is not None else None,
            chain=self.chain,
        )
        size_bytes = sum(part.body_bytes for part in (delta, snapshot) if part is not None)
        facts = {"version": version, "digest": digest, "bytes": size_bytes, "snapshot": snapshot is not None}
        await self._audit.write(Kind.VERSION_LEAVES, job=self._job, **facts)
        self._reached(Point.BEFORE_MANIFEST)
        seal = await self._seal(version, MANIFEST)
        await self._publisher.publish(self._post.to_model_log(manifest, seal=seal))
        if self._epochs is not None and self._epoch is not None:
            self._epochs.written(version, self._epoch, snapshot=snapshot is not None)
        self._epoch = None
        self._snapshot_back += 1
        return size_bytes


def snapshot_every(spec: JobSpec) -> int | None:
    """Versions between two snapshots, as the job asks; None: it leaves that to us. Models that are given are whole."""
    return spec.snapshot_every if isinstance(spec, TrainingSpec) else 1


def _some_of(frames: Iterator[bytes], hasher: _Hash | None) -> deque[bytes]:
    """Make the next frames, up to IN_FLIGHT_BYTES and one more, and hash them; empty after the last."""
    batch: deque[bytes] = deque()
    size = 0
    while size < IN_FLIGHT_BYTES and (frame := next(frames, None)) is not None:
        batch.append(frame)
        size += len(frame)
        if hasher is not None:
            hasher.update(frame)
    return batch
