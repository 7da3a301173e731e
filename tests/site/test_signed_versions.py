"""Versions that say their hashes and their chain: what was swapped, cut or forged is never held, and said plainly."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from pathlib import Path

import pytest

from fedbus.core.protocol.chain import chain_of
from fedbus.core.protocol.frames import Code, build_frame
from fedbus.core.protocol.messages import DELTA, SNAPSHOT, Chunk, Part, VersionManifest
from fedbus.site.job.model_files import ModelFiles, Step

LAYOUT = {"tensors": [["w", [40], "float32"]]}
COUNT = 4


def frames(seed: int) -> list[bytes]:
    return [build_frame(Code.FP32, 10 * n, 10, [struct.pack("<10f", *[seed + n] * 10)]) for n in range(COUNT)]


def chunks(version: int, part: str, *, seed: int | None = None) -> list[Chunk]:
    bodies = frames(version if seed is None else seed)
    return [
        Chunk(job="heart", transfer=str(version), part=part, index=index, count=COUNT, body=body)
        for index, body in enumerate(bodies)
    ]


def part(version: int) -> Part:
    body = b"".join(frames(version))
    return Part(frames=COUNT, body_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())


class Log:
    """What an aggregator says of its versions, with the chain as it goes on."""

    def __init__(self) -> None:
        self.chains: dict[int, str] = {}

    def manifest(self, version: int, *parts: str) -> VersionManifest:
        said = {name: part(version) if name in parts else None for name in (DELTA, SNAPSHOT)}
        linked = {"job": "heart", "version": version, "digest": f"digest {version}"}
        if version not in self.chains:
            self.chains[version] = chain_of(
                self.chains.get(version - 1, ""),
                job="heart",
                version=version,
                digest=f"digest {version}",
                delta=said[DELTA],
                snapshot=said[SNAPSHOT],
            )
        return VersionManifest(
            **linked,  # type: ignore[arg-type]
            **said,  # type: ignore[arg-type]
            snapshot_version=0,
            snapshot_at=0.0,
            layout=LAYOUT if SNAPSHOT in parts else None,
            chain=self.chains[version],
        )


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def files(tmp_path: Path, log: Log) -> ModelFiles:
    """Holds version 1: a snapshot and a delta."""
    files = ModelFiles(tmp_path / "model", chained=True)
    assert take(files, log.manifest(0, SNAPSHOT), chunks(0, SNAPSHOT)) is Step.NEW_VERSION
    assert take(files, log.manifest(1, DELTA), chunks(1, DELTA)) is Step.NEW_VERSION
    return files


def take(files: ModelFiles, manifest: VersionManifest, parts: list[Chunk]) -> Step:
    for chunk in parts:
        files.chunk(chunk)
    return files.manifest(manifest)


def held_version(files: ModelFiles) -> int:
    assert files.held is not None
    return files.held.version


def test_frames_that_came_out_of_order_have_the_same_hash(files: ModelFiles, log: Log) -> None:
    first, second, third, last = chunks(2, DELTA)
    assert take(files, log.manifest(2, DELTA), [first, third, first, last, second]) is Step.NEW_VERSION


def test_frames_of_another_delta_are_a_gap_and_leave_nothing(files: ModelFiles, log: Log, tmp_path: Path) -> None:
    assert take(files, log.manifest(2, DELTA), chunks(2, DELTA, seed=7)) is Step.GAP
    assert files.why == "the delta of version 2 has another hash than its signed manifest says"
    assert held_version(files) == 1
    assert not list((tmp_path / "model").glob("v00000002*"))


def test_one_frame_of_another_delta_is_enough(files: ModelFiles, log: Log) -> None:
    mixed = [*chunks(2, DELTA)[:-1], chunks(2, DELTA, seed=7)[-1]]
    assert take(files, log.manifest(2, DELTA), mixed) is Step.GAP


def test_a_snapshot_with_another_hash_is_not_adopted(files: ModelFiles, log: Log) -> None:
    assert take(files, log.manifest(2, SNAPSHOT), chunks(2, SNAPSHOT, seed=7)) is Step.GAP
    assert "snapshot of version 2 has another hash" in files.why


def test_a_version_of_another_chain_is_not_held(files: ModelFiles, log: Log) -> None:
    # given a signed log that has forked from what this site holds
    other = Log()
    other.chains[1] = "0f" * 32
    # then its delta does not lead on, and its snapshot does
    assert take(files, other.manifest(2, DELTA), chunks(2, DELTA)) is Step.GAP
    assert files.why == "version 2 has another chain than follows from version 1 here"
    assert take(files, other.manifest(3, DELTA), chunks(3, DELTA)) is Step.GAP
    assert take(files, other.manifest(3, SNAPSHOT), chunks(3, SNAPSHOT)) is Step.NEW_VERSION
    assert take(files, other.manifest(4, DELTA), chunks(4, DELTA)) is Step.NEW_VERSION


def test_an_earlier_version_again_changes_nothing(files: ModelFiles, log: Log) -> None:
    again = log.manifest(1, DELTA)
    take(files, log.manifest(2, DELTA), chunks(2, DELTA))
    assert take(files, again, chunks(1, DELTA)) is Step.NOTHING
    assert held_version(files) == 2


def test_a_version_that_says_no_chain_is_not_held(files: ModelFiles, log: Log) -> None:
    bare = dataclasses.replace(log.manifest(2, DELTA), chain="")
    assert take(files, bare, chunks(2, DELTA)) is Step.GAP
    assert "says no hash and no chain" in files.why


def test_the_chain_goes_on_after_a_restart_of_the_site(files: ModelFiles, log: Log, tmp_path: Path) -> None:
    files.remember(17)
    again = ModelFiles(tmp_path / "model", chained=True)
    assert again.kept is not None
    again.resume(again.kept, newest=1)
    other = Log()
    other.chains[1] = "0f" * 32
    assert take(again, other.manifest(2, DELTA), chunks(2, DELTA)) is Step.GAP
    assert take(again, log.manifest(2, DELTA), chunks(2, DELTA)) is Step.NEW_VERSION
