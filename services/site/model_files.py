"""Versions of one job as files at the site: the newest snapshot and the deltas after it.

The daemon follows the model log and only moves bytes: it checks every frame's checksum, collects the frames of a
version in a file and, when the manifest says that all are there, holds that version. The trainer applies the files.
Records may come twice, out of order or not at all (a stream overtaken by retention is silent about it): a version
that cannot be completed is a gap, and the site asks for a snapshot.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from fedbus.core.frames import check_frame
from fedbus.core.messages import Chunk, Part, VersionManifest
from fedbus.errors import DecodeError
from fedbus.store.files import disk_errors, make_folder

DELTA, SNAPSHOT = "delta", "snapshot"
_ANY_NUMEL = 1 << 48


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaFile:
    """Frames that lead from `version - 1` to `version`."""

    version: int
    digest: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the site holds: a snapshot and the deltas after it, `version` and `digest` of the result."""

    version: int
    digest: str
    layout: dict[str, Any]
    snapshot_version: int
    snapshot_digest: str
    snapshot: Path
    deltas: tuple[DeltaFile, ...] = ()


class Step(Enum):
    """What a manifest led to."""

    NEW_VERSION = auto()
    NOTHING = auto()
    GAP = auto()


@dataclass(slots=True, kw_only=True)
class _Arriving:
    """One part of one version, being received; its frames lie in the file as they came, the trainer sorts them."""

    path: Path
    have: set[int] = field(default_factory=set)
    body_bytes: int = 0

    def add(self, chunk: Chunk) -> None:
        if chunk.index in self.have:
            return
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(chunk.body)
                if written < len(chunk.body):  # the disk has just run full; writing the rest says so
                    file.write(memoryview(chunk.body)[written:])
            except OSError:
                file.truncate(before)
                raise
        self.have.add(chunk.index)
        self.body_bytes += len(chunk.body)

    def matches(self, part: Part) -> bool:
        return (len(self.have), self.body_bytes) == (part.frames, part.body_bytes)


class ModelFiles:
    """Files under `folder`, which is emptied first: what is needed is in the model log. `held` is None at first."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = make_folder(folder)
        self._arriving: dict[tuple[int, str], _Arriving] = {}
        self._retired: list[Path] = []
        self._floor = 0
        self.held: Held | None = None

    def skip_below(self, version: int) -> None:
        """Versions below this one are of no use: a joiner attaches a little before the snapshot it starts from."""
        self._floor = version

    def drop_held(self) -> None:
        """What is held is of no use, its digest differs: hold nothing until a snapshot comes."""
        if self.held is not None:
            for path in (self.held.snapshot, *(d.path for d in self.held.deltas)):
                path.unlink(missing_ok=True)
        self.held = None

    def discard_retired(self) -> None:
        """Drop files that a newer snapshot replaced; call it while the trainer loads nothing."""
        while self._retired:
            self._retired.pop().unlink(missing_ok=True)

    def chunk(self, chunk: Chunk) -> None:
        """Keep a frame of a version that is not held yet. Raises DecodeError for a damaged frame or header."""
        version = _version_of(chunk)
        if version <= self._version or version < self._floor:
            return
        check_frame(chunk.body, _ANY_NUMEL)
        key = (version, chunk.part)
        with disk_errors("cannot keep model file", self._folder):
            if key not in self._arriving:
                path = self._folder / f"v{version:08d}.{chunk.part}"
                path.unlink(missing_ok=True)
                self._arriving[key] = _Arriving(path=path)
            self._arriving[key].add(chunk)

    def manifest(self, manifest: VersionManifest) -> Step:
        """Hold the version if it is complete; GAP when it can only be reached through a snapshot."""
        if manifest.version <= self._version or manifest.version < self._floor:
            return Step.NOTHING
        delta = self._take(manifest.version, DELTA, manifest.delta)
        snapshot = self._take(manifest.version, SNAPSHOT, manifest.snapshot)
        if delta is not None and self.held is not None and manifest.version == self.held.version + 1:
            step = DeltaFile(version=manifest.version, digest=manifest.digest, path=delta)
            self.held = replace(
                self.held, version=manifest.version, digest=manifest.digest, deltas=(*self.held.deltas, step)
            )
        elif delta is not None:
            delta.unlink(missing_ok=True)
        if snapshot is not None and manifest.layout is not None:
            self._adopt(snapshot, manifest, dict(manifest.layout))
        self._drop_older(manifest.version)
        return Step.NEW_VERSION if self._version == manifest.version else Step.GAP

    @property
    def _version(self) -> int:
        return -1 if self.held is None else self.held.version

    def _adopt(self, path: Path, manifest: VersionManifest, layout: dict[str, Any]) -> None:
        old = self.held
        self.held = Held(
            version=manifest.version,
            digest=manifest.digest,
            layout=layout,
            snapshot_version=manifest.version,
            snapshot_digest=manifest.digest,
            snapshot=path,
        )
        if old is not None:
            self._retired += [old.snapshot, *(d.path for d in old.deltas)]

    def _take(self, version: int, part: str, expected: Part | None) -> Path | None:
        arriving = self._arriving.pop((version, part), None)
        if arriving is None:
            return None
        if expected is not None and arriving.matches(expected):
            return arriving.path
        arriving.path.unlink(missing_ok=True)
        return None

    def _drop_older(self, version: int) -> None:
        for key in [k for k in self._arriving if k[0] <= version]:
            self._take(*key, None)


def _version_of(chunk: Chunk) -> int:
    if chunk.part not in (DELTA, SNAPSHOT) or not chunk.transfer.isdecimal():
        raise DecodeError(f"expected a chunk of a version, got part {chunk.part!r} of transfer {chunk.transfer!r}")
    return int(chunk.transfer)
