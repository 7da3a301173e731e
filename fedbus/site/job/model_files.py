"""Versions of one job as files at the site: the newest snapshot and the deltas after it.

The daemon follows the model log and only moves bytes: it checks every frame's checksum, collects the frames of a
version in a file and, when the manifest says that all are there, holds that version. The trainer applies the files.
Records may come twice, out of order or not at all (a stream overtaken by retention is silent about it): a version
that cannot be completed is a gap, and the site asks for a snapshot. So is one whose frames have another hash than its
signed manifest says, or that does not follow what is held by its chain: the trainer never gets to see it.

    held.json   what is held and where in the log it ended, so that a site that comes back reads on from there
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbus.core.protocol.chain import chain_of
from fedbus.core.protocol.frames import check_frame
from fedbus.core.protocol.messages import DELTA, SNAPSHOT, Chunk, Part, VersionManifest
from fedbus.errors import DecodeError
from fedbus.store.files import disk_errors, make_folder

if TYPE_CHECKING:
    from hashlib import _Hash

_ANY_NUMEL = 1 << 48
_HELD = "held.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaFile:
    """Frames that lead from `version - 1` to `version`."""

    version: int
    digest: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the site holds: a snapshot and the deltas after it, `version` and `digest` of the result.

    chain: names the version and all before it, see `core.protocol.chain`; "" where versions say none.
    """

    version: int
    digest: str
    layout: dict[str, Any]
    snapshot_version: int
    snapshot_digest: str
    snapshot: Path
    deltas: tuple[DeltaFile, ...] = ()
    chain: str = ""


class Step(Enum):
    """What a manifest led to."""

    NEW_VERSION = auto()
    NOTHING = auto()
    GAP = auto()


@dataclass(slots=True, kw_only=True)
class _Arriving:
    """One part of one version, being received; its frames lie in the file as they came, the trainer sorts them."""

    path: Path
    have: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Where in the file each frame is: its first byte and its length."""
    body_bytes: int = 0
    hashed: int = 0
    """So many frames, the first ones, are in `hasher`."""
    hasher: _Hash | None = None

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
        self.have[chunk.index] = before, len(chunk.body)
        self.body_bytes += len(chunk.body)
        if self.hasher is not None and chunk.index == self.hashed:
            self.hasher.update(chunk.body)
            self.hashed += 1

    def matches(self, part: Part) -> bool:
        return (len(self.have), self.body_bytes) == (part.frames, part.body_bytes)

    def sha256(self) -> str:
        """Over all frames in order; reads those again that came before one that belongs in front of them."""
        hasher = self.hasher or hashlib.sha256()
        with self.path.open("rb") as file:
            for _, (first, length) in sorted(self.have.items())[self.hashed :]:
                file.seek(first)
                hasher.update(file.read(length))
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What an earlier process held, and the offset of the manifest that completed it in the model log of that name.

    log: "" where an earlier release has kept it, which did not say.
    """

    held: Held
    offset: int
    log: str = ""


class ModelFiles:
    """Files under `folder`. Nothing is held at first; what an earlier process held is `kept` until `resume` is called.

    What was kept is of use only when it is read on from there: otherwise what is needed is in the model log.
    """

    def __init__(self, folder: Path, *, chained: bool = False) -> None:
        """`chained`: versions must say their hashes and their chain, and are refused when those are wrong."""
        self.why = ""
        """Why the last GAP was one; "" when records were lost."""
        self._chained = chained
        self._folder = make_folder(folder)
        self._arriving: dict[tuple[int, str], _Arriving] = {}
        self._retired: list[Path] = []
        self._floor = 0
        self._held: Held | None = None
        self._shown_from = 0
        self.kept = kept_in(self._folder)
        self._drop_all_but(_files_of(None if self.kept is None else self.kept.held))

    @property
    def held(self) -> Held | None:
        """The newest version that is whole; None while a site that came back has not caught up."""
        if self._held is None or self._held.version < self._shown_from:
            return None
        return self._held

    def resume(self, kept: Kept, *, newest: int) -> None:
        """Hold what an earlier process held, but show nothing before version `newest`, which is there already."""
        self._held, self.kept = kept.held, None
        self.show_from(newest)

    def show_from(self, version: int) -> None:
        """Show nothing before this version: it is in the log, whatever somebody says who gives an old one."""
        self._shown_from = max(self._shown_from, version)

    def forget(self) -> None:
        """What an earlier process held is of no use."""
        self.kept = None
        self._drop_all_but(set())

    def remember(self, offset: int, *, log: str = "") -> None:
        """Keep what is held for a later process; `offset` is that of the manifest that completed it in the log.

        Not synced: after a loss of power the trainer finds another digest, and asks for a snapshot.
        """
        if self._held is None:
            return
        beside = self._folder / f"{_HELD}.tmp"
        with disk_errors("cannot keep model file", beside):
            beside.write_text(json.dumps({"offset": offset, "log": log, "held": _to_json(self._held)}))
            beside.replace(self._folder / _HELD)

    def skip_below(self, version: int) -> None:
        """Versions below this one are of no use: a joiner attaches a little before the snapshot it starts from."""
        self._floor = version

    def drop_held(self) -> None:
        """What is held is of no use, its digest differs: hold nothing until a snapshot comes."""
        if self._held is not None:
            (self._folder / _HELD).unlink(missing_ok=True)
            for path in _files_of(self._held):
                path.unlink(missing_ok=True)
        self._held = None

    def _drop_all_but(self, wanted: set[Path]) -> None:
        for path in self._folder.iterdir():
            if path not in wanted and (not wanted or path.name != _HELD):
                path.unlink(missing_ok=True)

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
                hasher = hashlib.sha256() if self._chained else None
                self._arriving[key] = _Arriving(path=path, hasher=hasher)
            self._arriving[key].add(chunk)

    def manifest(self, manifest: VersionManifest) -> Step:
        """Hold the version if it is complete; GAP when it can only be reached through a snapshot."""
        if manifest.version <= self._version or manifest.version < self._floor:
            return Step.NOTHING
        self.why = ""
        if self._chained and not manifest.chain:
            self.why = f"version {manifest.version} says no hash and no chain, which every signed version does"
            self._drop_older(manifest.version)
            return Step.GAP
        delta = self._take(manifest.version, DELTA, manifest.delta)
        snapshot = self._take(manifest.version, SNAPSHOT, manifest.snapshot)
        if delta is not None and self._held is not None and self._follows(manifest, self._held):
            step = DeltaFile(version=manifest.version, digest=manifest.digest, path=delta)
            self._held = replace(
                self._held,
                version=manifest.version,
                digest=manifest.digest,
                deltas=(*self._held.deltas, step),
                chain=manifest.chain,
            )
        elif delta is not None:
            delta.unlink(missing_ok=True)
        if snapshot is not None and manifest.layout is not None:
            self._adopt(snapshot, manifest, dict(manifest.layout))
        self._drop_older(manifest.version)
        return Step.NEW_VERSION if self._version == manifest.version else Step.GAP

    def _follows(self, manifest: VersionManifest, held: Held) -> bool:
        """Whether the delta of a version leads on from what is held."""
        if manifest.version != held.version + 1:
            return False
        expected = chain_of(
            held.chain,
            job=manifest.job,
            version=manifest.version,
            digest=manifest.digest,
            delta=manifest.delta,
            snapshot=manifest.snapshot,
        )
        if self._chained and manifest.chain != expected:
            self.why = f"version {manifest.version} has another chain than follows from version {held.version} here"
            return False
        return True

    @property
    def _version(self) -> int:
        return -1 if self._held is None else self._held.version

    def _adopt(self, path: Path, manifest: VersionManifest, layout: dict[str, Any]) -> None:
        old = self._held
        self._held = Held(
            version=manifest.version,
            digest=manifest.digest,
            layout=layout,
            snapshot_version=manifest.version,
            snapshot_digest=manifest.digest,
            snapshot=path,
            chain=manifest.chain,
        )
        if old is not None:
            self._retired += _files_of(old)

    def _take(self, version: int, part: str, expected: Part | None) -> Path | None:
        arriving = self._arriving.pop((version, part), None)
        if arriving is None:
            return None
        if expected is not None and arriving.matches(expected):
            with disk_errors("cannot read model file", arriving.path):
                if not self._chained or arriving.sha256() == expected.sha256:
                    return arriving.path
            self.why = f"the {part} of version {version} has another hash than its signed manifest says"
        arriving.path.unlink(missing_ok=True)
        return None

    def _drop_older(self, version: int) -> None:
        for key in [k for k in self._arriving if k[0] <= version]:
            self._take(*key, None)


def _version_of(chunk: Chunk) -> int:
    if chunk.part not in (DELTA, SNAPSHOT) or not chunk.transfer.isdecimal():
        raise DecodeError(f"expected a chunk of a version, got part {chunk.part!r} of transfer {chunk.transfer!r}")
    return int(chunk.transfer)


def _files_of(held: Held | None) -> set[Path]:
    return set() if held is None else {held.snapshot, *(delta.path for delta in held.deltas)}


def _to_json(held: Held) -> dict[str, Any]:
    return {
        "snapshot": [held.snapshot_version, held.snapshot_digest, held.snapshot.name],
        "layout": held.layout,
        "chain": held.chain,
        "deltas": [[delta.version, delta.digest, delta.path.name] for delta in held.deltas],
    }


def kept_in(folder: Path) -> Kept | None:
    """What `remember` wrote; None when it is not there, cut short, or names files that are not. Changes nothing."""
    path = folder / _HELD
    with suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(path.read_text())
        version, digest, name = data["held"]["snapshot"]
        deltas = tuple(DeltaFile(version=v, digest=d, path=path.parent / n) for v, d, n in data["held"]["deltas"])
        held = Held(
            version=deltas[-1].version if deltas else version,
            digest=deltas[-1].digest if deltas else digest,
            layout=data["held"]["layout"],
            snapshot_version=version,
            snapshot_digest=digest,
            snapshot=path.parent / name,
            deltas=deltas,
            chain=str(data["held"].get("chain", "")),
        )
        if all(file.is_file() for file in _files_of(held)):
            return Kept(held=held, offset=int(data["offset"]), log=str(data.get("log", "")))
    return None
