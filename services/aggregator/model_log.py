"""Writing the model log: chunks first, confirmed, then the manifest alone, so that a joiner finds it last.

A snapshot goes with every version that makes it worth while: the first, every `snapshot_every` versions, or when the
deltas since the last one are REPLAY_MODELS times as large as a snapshot, so that a joiner never reads much more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from fedbus.bus import mail
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import ModelLogSize
from fedbus.core.jobspec import JobSpec
from fedbus.core.layout import Layout
from fedbus.core.messages import Chunk, Part, Receipt, VersionManifest
from fedbus.runtime.faults import Point, Reached, nothing

REPLAY_MODELS = 4
MOST_VERSIONS = 64
# Each site is also told by itself, and again when it asks: a flood of refusals must not make a version too long to go.
MOST_RECEIPTS = 1000


class ModelLogWriter:
    """Publishes versions of one job."""

    def __init__(
        self, job: str, spec: JobSpec, layout: Layout, publisher: Publisher, *, reached: Reached = nothing
    ) -> None:
        self._job = job
        self._layout: dict[str, Any] = layout.to_dict()
        self._publisher = publisher
        self._reached = reached
        self._every = spec.snapshot_every or MOST_VERSIONS
        self._since_bytes = 0
        self._snapshot_bytes = 4 * layout.numel
        self._snapshot_version = -1
        self._snapshot_at = 0.0

    @staticmethod
    def size(spec: JobSpec, layout: Layout) -> ModelLogSize:
        """How much the stream must keep for a joiner to find the newest snapshot and all after it."""
        snapshot_bytes = 4 * layout.numel
        every = min(spec.snapshot_every or MOST_VERSIONS, MOST_VERSIONS)
        period_bytes = every * snapshot_bytes if spec.snapshot_every else (REPLAY_MODELS + 1) * snapshot_bytes
        return ModelLogSize(snapshot_bytes=snapshot_bytes, delta_bytes=-(-period_bytes // every), snapshot_every=every)

    def wants_snapshot(self, version: int) -> bool:
        """Whether this version should bring a snapshot along."""
        return (
            self._snapshot_version < 0
            or version - self._snapshot_version >= self._every
            or self._since_bytes >= REPLAY_MODELS * self._snapshot_bytes
        )

    async def publish(
        self,
        version: int,
        *,
        digest: str,
        delta: list[bytes] | None,
        snapshot: Iterable[bytes] | None,
        receipts: tuple[Receipt, ...] = (),
    ) -> int:
        """Publish a version and return its bytes; when this returns, the broker has it all on disk.

        Its manifest names the newest MOST_RECEIPTS of `receipts`.
        """
        began_at = time.time()
        parts: dict[str, Part | None] = {"delta": None, "snapshot": None}
        frames = {"delta": delta, "snapshot": list(snapshot) if snapshot is not None else None}
        for name, bodies in frames.items():
            if bodies is not None:
                parts[name] = Part(frames=len(bodies), body_bytes=sum(map(len, bodies)))
                await self._publisher.publish_many(self._chunks(version, name, bodies))
        if parts["snapshot"] is not None:
            self._snapshot_version, self._snapshot_at, self._since_bytes = version, began_at, 0
        elif parts["delta"] is not None:
            self._since_bytes += parts["delta"].body_bytes
        manifest = VersionManifest(
            job=self._job,
            version=version,
            digest=digest,
            delta=parts["delta"],
            snapshot=parts["snapshot"],
            snapshot_version=self._snapshot_version,
            snapshot_at=self._snapshot_at,
            receipts=receipts[-MOST_RECEIPTS:],
            layout=self._layout if parts["snapshot"] is not None else None,
        )
        self._reached(Point.BEFORE_MANIFEST)
        await self._publisher.publish(mail.to_model_log(manifest))
        return sum(p.body_bytes for p in parts.values() if p is not None)

    def _chunks(self, version: int, part: str, bodies: list[bytes]) -> Iterator[Envelope]:
        for index, body in enumerate(bodies):
            chunk = Chunk(job=self._job, transfer=str(version), part=part, index=index, count=len(bodies), body=body)
            yield mail.to_model_log(chunk)
            self._reached(Point.BETWEEN_CHUNKS)
