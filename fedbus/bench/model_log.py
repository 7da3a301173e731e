"""What hashing and sealing a version costs, at the aggregator and at each site: processor seconds per GB of frames.

The aggregator's own writer without a broker, the site's own files; frames are random bytes of one chunk each.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.bench.figures import Row, row
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol.frames import Code, build_frame
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import SNAPSHOT, Chunk, VersionManifest
from fedbus.core.spec.training import TrainingSpec
from fedbus.site.job.model_files import ModelFiles, Step
from fedbus.store.ledger import Ledger
from fedbus.trust.epochs import LogKeys
from fedbus.trust.sealing import SealKeys
from fedbus.trust.suites import X25519

JOB, CHUNK_BYTES = "bench", 1 << 20
LAYOUT = Layout.of([TensorSpec(name="w", shape=(1,), dtype="float32")])
LOCAL = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
SPEC = TrainingSpec.parse({"name": JOB, "task": "t", "local": LOCAL, "stop": {"versions": 1}})


class _Kept:
    """A publisher that keeps the last version."""

    def __init__(self) -> None:
        self.records: list[Envelope] = []

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        self.records.append(envelope)

    async def publish_many(self, envelopes: Iterable[Envelope], *, window: int) -> int:
        self.records += envelopes
        return 0


def rows(*, mib: int, times: int) -> list[Row]:
    """Medians of `times` versions of `mib` MiB; each kind of log in turn."""
    values = CHUNK_BYTES // 4 - 16
    frames = [build_frame(Code.FP32, n * values, values, [os.urandom(4 * values)]) for n in range(mib)]
    size_gb = sum(map(len, frames)) / 1e9
    taken: dict[str, list[float]] = {}
    for _ in range(times):
        for kit in (False, True):
            for what, seconds in asyncio.run(_version(frames, kit=kit)).items():
                taken.setdefault(f"{what}, {'hashed and sealed' if kit else 'plain'}", []).append(seconds / size_gb)
    return [row(case, statistics.median(found), "s/GB") for case, found in sorted(taken.items())]


async def _version(frames: list[bytes], *, kit: bool) -> dict[str, float]:
    """Processor seconds of publishing a version, and of reading it."""
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder, Ledger(Path(folder) / "ledger") as ledger:
        kept, epochs = _Kept(), await _epochs(ledger) if kit else None
        publisher: Any = kept
        chained = (-1, "") if kit else None
        writer = ModelLogWriter(JOB, SPEC, LAYOUT, publisher, post=Post(), chained=chained, epochs=epochs)
        compute: Any = _at_once
        began = time.process_time()
        part = await writer.send(0, SNAPSHOT, iter(frames), count=len(frames), compute=compute)
        await writer.finish(0, digest="", delta=None, snapshot=part)
        published = time.process_time() - began
        keys = None if epochs is None else LogKeys(JOB, [epochs.newest])
        began = time.process_time()
        _read(kept.records, keys, ModelFiles(Path(folder) / "model", chained=kit))
        return {"publish": published, "read": time.process_time() - began}


async def _epochs(ledger: Ledger) -> Epochs:
    async def tell() -> None:
        """Nobody else reads."""

    site, store = SealKeys.make(), _at_once
    given: Any = {"federation": "bench", "ledger": ledger, "store": store}
    epochs = Epochs(JOB, **given, seal_key_of=lambda name: site.public[X25519])
    await epochs.open(tell)
    return epochs


def _read(records: Iterable[Envelope], keys: LogKeys | None, files: ModelFiles) -> None:
    post = Post()
    for record in records:
        message = post.from_model_log(replace(record, user_id="aggregator"), keys)
        if isinstance(message, Chunk):
            files.chunk(message)
        elif isinstance(message, VersionManifest) and files.manifest(message) is not Step.NEW_VERSION:
            raise RuntimeError(f"the version was not held: {files.why}")


async def _at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Another thread without a thread."""
    return function(*args, **kwargs)
