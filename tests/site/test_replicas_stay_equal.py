"""Ten thousand random operations between an aggregator and three sites, on a log that loses, repeats and mixes up.

What travels is what travels in a job: coded frames as chunks, manifests, files, loads with deltas or a snapshot. The
aggregator is the arithmetic of `GlobalModel.commit_` and a list of every version it ever published.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import Chunk, Part, VersionManifest
from fedbus.errors import DecodeError
from fedbus.site.job import assignment
from fedbus.site.job.model_files import Held, ModelFiles, Step
from fedbus.tensors.codec import decode_into_, encode
from fedbus.tensors.digest import digest
from fedbus.tensors.replica import Replica
from fedbus.training.frames_file import read_frames

LAYOUT = Layout.of([TensorSpec(name=str(n), shape=(n,), dtype="float32") for n in (100, 9000)])
OPERATIONS = 10_000
DOWN_CODES = [Code.INT8, Code.INT4, Code.TOPK]  # those that leave most to later versions

Records = list[Chunk | VersionManifest]


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


class Aggregator:
    """Params x, hidden params h, and h of every version."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._generator = torch.Generator().manual_seed(1)
        self.params = torch.randn(LAYOUT.numel, generator=self._generator)
        self.hidden = self.params.clone()
        self.versions: list[Tensor] = []
        self.snapshot_wanted = True

    def commit(self) -> Records:
        """One version: a delta, and a snapshot when somebody asked for it."""
        version = len(self.versions)
        records: Records = []
        parts: dict[str, Part] = {}
        if version:
            self.params += 0.01 * torch.randn(LAYOUT.numel, generator=self._generator)
            gap = self.params - self.hidden
            frames = list(encode(gap, LAYOUT, self._code, chunk_bytes=1 << 14, seed=version, to_hidden=True))
            for frame in frames:
                decode_into_(gap, frame, LAYOUT)
            self.hidden += gap
            parts["delta"] = self._put(records, version, "delta", frames)
        if self.snapshot_wanted:
            frames = list(encode(self.hidden, LAYOUT, Code.FP32, chunk_bytes=1 << 16, seed=0))
            parts["snapshot"] = self._put(records, version, "snapshot", frames)
            self.snapshot_wanted = False
        manifest = VersionManifest(
            job="job",
            version=version,
            digest=digest(self.hidden),
            delta=parts.get("delta"),
            snapshot=parts.get("snapshot"),
            snapshot_version=version,
            snapshot_at=0.0,
            layout=LAYOUT.to_dict() if "snapshot" in parts else None,
        )
        self.versions.append(self.hidden.clone())
        return [*records, manifest]

    def _put(self, records: Records, version: int, part: str, frames: list[bytes]) -> Part:
        for index, body in enumerate(frames):
            records.append(
                Chunk(job="job", transfer=str(version), part=part, index=index, count=len(frames), body=body)
            )
        return Part(frames=len(frames), body_bytes=sum(map(len, frames)))


class Site:
    """Files and replica of one site; `snapshots` and `deltas` count what its trainer loaded.

    `verified`: the last `load` brought a version whose digest was the right one.
    """

    def __init__(self, folder: Path) -> None:
        self.files = ModelFiles(folder)
        self.replica = Replica(LAYOUT)
        self.loaded: Held | None = None
        self.snapshots = self.deltas = self.mismatches = 0
        self.verified = False

    def take(self, record: Chunk | VersionManifest) -> bool:
        """Whether a snapshot must be asked for."""
        if isinstance(record, Chunk):
            self.files.chunk(record)
            return False
        return self.files.manifest(record) is Step.GAP

    def load(self) -> bool:
        """As trainer and daemon do it together; whether a snapshot must be asked for."""
        held = self.files.held
        self.verified = False
        if held is None or (self.loaded is not None and self.loaded.version == held.version):
            return False
        self.files.discard_retired()
        command = assignment.load(held, since=None if self.loaded is None else self.loaded.version)
        fresh = self.loaded is None
        try:
            if command.snapshot is not None:
                self.replica.load_snapshot_(read_frames(Path(command.snapshot)))
                self.snapshots += 1
            for path in command.deltas:
                self.replica.apply_delta_(read_frames(Path(path)))
                self.deltas += 1
            if self.replica.digest != command.digest:
                raise DecodeError("another digest")
        except DecodeError:
            self.mismatches += 1
            self.loaded = None
            if fresh:
                self.files.drop_held()
            return fresh
        self.loaded, self.verified = held, True
        return False


def disturb(queue: Records, draw: random.Random) -> None:
    """One record is lost, comes again later, or is overtaken by a few."""
    match draw.randrange(20):
        case 0:
            queue.pop(draw.randrange(len(queue)))
        case number if number < 10:
            queue.insert(draw.randrange(len(queue)) + 1, queue[0])
        case _:
            queue.insert(draw.randrange(min(len(queue), 4)), queue.pop(0))


@pytest.mark.parametrize("code", DOWN_CODES)
def test_replicas_stay_equal_whatever_the_log_loses_repeats_or_mixes_up(tmp_path: Path, code: Code) -> None:
    draw = random.Random(7)
    aggregator = Aggregator(code)
    sites = [Site(tmp_path / str(number)) for number in range(3)]
    on_their_way: list[Records] = [[] for _ in sites]
    equal = 0

    for _ in range(OPERATIONS):
        number = draw.randrange(len(sites))
        site, queue = sites[number], on_their_way[number]
        what = draw.random()
        if what < 0.025:
            records = aggregator.commit()
            for waiting in on_their_way:
                waiting.extend(records)
        elif what < 0.065 and queue:
            disturb(queue, draw)
        elif what < 0.066:  # the memory of a site fails
            site.replica.flat[draw.randrange(LAYOUT.numel)] += 1.0
        elif what < 0.15:
            aggregator.snapshot_wanted |= site.load()
            if site.verified:
                assert site.loaded is not None
                assert same_bits(site.replica.flat, aggregator.versions[site.loaded.version])
                equal += 1
        elif queue:
            aggregator.snapshot_wanted |= site.take(queue.pop(0))

    # then whoever follows to the end holds the newest version, to the bit
    aggregator.snapshot_wanted = True
    records = aggregator.commit()
    for site, queue in zip(sites, on_their_way, strict=True):
        for record in [*queue, *records]:
            site.take(record)
        site.loaded = None
        assert not site.load()
        assert same_bits(site.replica.flat, aggregator.versions[-1])
    assert len(aggregator.versions) > 200
    assert equal > 200
    for happened in ("deltas", "snapshots", "mismatches"):
        assert sum(getattr(site, happened) for site in sites) > 5
