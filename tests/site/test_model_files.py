"""Versions as files: whatever order records come in, a version is held whole or not at all."""

from __future__ import annotations

import dataclasses
import random
import struct
from pathlib import Path

import pytest

from fedbus.core.protocol.frames import Code, build_frame
from fedbus.core.protocol.messages import Chunk, Part, VersionManifest
from fedbus.errors import DecodeError
from fedbus.site.job.model_files import ModelFiles, Step
from fedbus.training.frames_file import read_frames

LAYOUT = {"tensors": [["w", [40], "float32"]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def files(folder: Path) -> ModelFiles:
    return ModelFiles(folder)


def frames(version: int, count: int = 4) -> list[bytes]:
    """Distinct frames, the later the longer."""
    return [
        build_frame(Code.FP32, index * 10, 10, [struct.pack("<10f", *[version + index] * 10), bytes(index)])
        for index in range(count)
    ]


def chunks(version: int, part: str, count: int = 4) -> list[Chunk]:
    return [
        Chunk(job="heart", transfer=str(version), part=part, index=index, count=count, body=body)
        for index, body in enumerate(frames(version, count))
    ]


def manifest(version: int, *parts: str, count: int = 4) -> VersionManifest:
    part = Part(frames=count, body_bytes=sum(map(len, frames(version, count))))
    return VersionManifest(
        job="heart",
        version=version,
        digest=f"digest {version}",
        delta=part if "delta" in parts else None,
        snapshot=part if "snapshot" in parts else None,
        snapshot_version=0,
        snapshot_at=0.0,
        layout=LAYOUT if "snapshot" in parts else None,
    )


def receive(files: ModelFiles, version: int, *parts: str) -> Step:
    for part in parts:
        for chunk in chunks(version, part):
            files.chunk(chunk)
    return files.manifest(manifest(version, *parts))


def holding(files: ModelFiles, version: int) -> ModelFiles:
    """Snapshot 0 and deltas up to `version`."""
    assert receive(files, 0, "snapshot") is Step.NEW_VERSION
    for number in range(1, version + 1):
        assert receive(files, number, "delta") is Step.NEW_VERSION
    return files


def content(path: Path) -> list[bytes]:
    return [bytes(frame) for frame in read_frames(path)]


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------ the good path


def test_the_first_snapshot_is_held_with_its_layout(files: ModelFiles) -> None:
    assert receive(files, 5, "snapshot") is Step.NEW_VERSION
    held = files.held
    assert held is not None
    assert (held.version, held.digest, held.layout) == (5, "digest 5", LAYOUT)
    assert (held.snapshot_version, held.snapshot_digest, held.deltas) == (5, "digest 5", ())
    assert content(held.snapshot) == frames(5)


def test_deltas_follow_one_by_one(files: ModelFiles) -> None:
    held = holding(files, 3).held
    assert held is not None
    assert (held.version, held.digest, held.snapshot_version) == (3, "digest 3", 0)
    assert [(d.version, d.digest) for d in held.deltas] == [(v, f"digest {v}") for v in (1, 2, 3)]
    assert [content(d.path) for d in held.deltas] == [frames(v) for v in (1, 2, 3)]


@pytest.mark.parametrize("seed", range(5))
def test_frames_out_of_order_and_twice_make_the_same_version(files: ModelFiles, seed: int) -> None:
    sent = chunks(0, "snapshot", 100) + chunks(0, "snapshot", 100)[::3]
    random.Random(seed).shuffle(sent)
    for chunk in sent:
        files.chunk(chunk)
    assert files.manifest(manifest(0, "snapshot", count=100)) is Step.NEW_VERSION
    assert files.held is not None
    assert content(files.held.snapshot) == frames(0, 100)


def test_the_first_frame_may_come_after_all_others(files: ModelFiles) -> None:
    first, *others = chunks(0, "snapshot", 100)
    for chunk in (*others, first):
        files.chunk(chunk)
    assert files.manifest(manifest(0, "snapshot", count=100)) is Step.NEW_VERSION


def test_a_version_with_delta_and_snapshot_is_held_as_the_snapshot(files: ModelFiles) -> None:
    holding(files, 1)
    assert receive(files, 2, "delta", "snapshot") is Step.NEW_VERSION
    assert files.held is not None
    assert (files.held.version, files.held.snapshot_version, files.held.deltas) == (2, 2, ())


def test_a_delta_is_enough_when_the_snapshot_beside_it_is_not_whole(files: ModelFiles) -> None:
    holding(files, 1)
    for chunk in chunks(2, "delta") + chunks(2, "snapshot")[1:]:
        files.chunk(chunk)
    assert files.manifest(manifest(2, "delta", "snapshot")) is Step.NEW_VERSION
    assert files.held is not None
    assert (files.held.version, files.held.snapshot_version) == (2, 0)


# ------------------------------------------------------------------ repeats


def test_a_version_that_is_held_is_not_taken_again(files: ModelFiles, folder: Path) -> None:
    before = holding(files, 2).held, on_disk(folder)
    for version in (0, 1, 2):
        assert receive(files, version, "delta", "snapshot") is Step.NOTHING
    assert (files.held, on_disk(folder)) == before


def test_a_version_that_its_writer_began_twice_is_held_once(files: ModelFiles) -> None:
    holding(files, 0)
    for chunk in chunks(1, "delta")[:3]:
        files.chunk(chunk)
    assert receive(files, 1, "delta") is Step.NEW_VERSION
    assert files.held is not None
    assert content(files.held.deltas[0].path) == frames(1)


# ------------------------------------------------------------------ gaps


def test_a_delta_that_does_not_follow_is_a_gap_and_is_not_kept(files: ModelFiles, folder: Path) -> None:
    holding(files, 1)
    before = on_disk(folder)
    assert receive(files, 3, "delta") is Step.GAP
    assert files.held is not None
    assert files.held.version == 1
    assert on_disk(folder) == before


def test_a_delta_without_any_snapshot_is_a_gap(files: ModelFiles, folder: Path) -> None:
    assert receive(files, 1, "delta") is Step.GAP
    assert files.held is None
    assert on_disk(folder) == []


@pytest.mark.parametrize("lost", [0, 2, 3])
def test_a_lost_frame_is_a_gap(files: ModelFiles, folder: Path, lost: int) -> None:
    holding(files, 1)
    before = on_disk(folder)
    for chunk in chunks(2, "delta"):
        if chunk.index != lost:
            files.chunk(chunk)
    assert files.manifest(manifest(2, "delta")) is Step.GAP
    assert on_disk(folder) == before


@pytest.mark.parametrize("change", [{"frames": 3}, {"frames": 5}, {"body_bytes": 1}])
def test_a_manifest_that_counts_otherwise_is_a_gap(files: ModelFiles, change: dict[str, int]) -> None:
    for chunk in chunks(0, "snapshot"):
        files.chunk(chunk)
    right = manifest(0, "snapshot")
    assert right.snapshot is not None
    wrong = dataclasses.replace(right, snapshot=dataclasses.replace(right.snapshot, **change))
    assert files.manifest(wrong) is Step.GAP
    assert files.held is None


def test_a_snapshot_ends_a_gap_and_deltas_go_on_from_it(files: ModelFiles) -> None:
    holding(files, 1)
    assert receive(files, 3, "delta") is Step.GAP
    assert receive(files, 3, "snapshot") is Step.NEW_VERSION
    assert receive(files, 4, "delta") is Step.NEW_VERSION
    assert files.held is not None
    assert (files.held.version, files.held.snapshot_version) == (4, 3)


def test_a_snapshot_without_a_layout_is_of_no_use(files: ModelFiles) -> None:
    for chunk in chunks(0, "snapshot"):
        files.chunk(chunk)
    assert files.manifest(dataclasses.replace(manifest(0, "snapshot"), layout=None)) is Step.GAP


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"part": "update"}, "expected a chunk of a version"),
        ({"transfer": "mercy:0123abcd:1"}, "expected a chunk of a version"),
        ({"transfer": "-1"}, "expected a chunk of a version"),
        ({"transfer": "²"}, "expected a chunk of a version"),
        ({"body": b"no frame"}, "at least"),
    ],
)
def test_a_record_that_is_no_part_of_a_version_is_refused(
    files: ModelFiles, change: dict[str, object], says: str
) -> None:
    with pytest.raises(DecodeError, match=says):
        files.chunk(dataclasses.replace(chunks(0, "snapshot")[0], **change))  # type: ignore[arg-type]


def test_a_damaged_frame_is_refused_and_the_version_is_a_gap_unless_it_comes_again(files: ModelFiles) -> None:
    first, *others = chunks(0, "snapshot")
    damaged = dataclasses.replace(first, body=first.body[:-1] + b"\xff")
    with pytest.raises(DecodeError, match="checksum"):
        files.chunk(damaged)
    for chunk in (*others, first):
        files.chunk(chunk)
    assert files.manifest(manifest(0, "snapshot")) is Step.NEW_VERSION


# ------------------------------------------------------------------ joining and cleaning up


def test_a_joiner_skips_what_lies_before_its_snapshot(files: ModelFiles, folder: Path) -> None:
    files.skip_below(7)
    assert receive(files, 5, "snapshot") is Step.NOTHING
    assert receive(files, 6, "delta") is Step.NOTHING
    assert on_disk(folder) == []
    assert receive(files, 7, "snapshot") is Step.NEW_VERSION


def test_files_that_a_snapshot_replaced_stay_until_the_trainer_is_done_with_them(
    files: ModelFiles, folder: Path
) -> None:
    holding(files, 2)
    receive(files, 3, "snapshot")
    assert on_disk(folder) == ["v00000000.snapshot", "v00000001.delta", "v00000002.delta", "v00000003.snapshot"]
    files.discard_retired()
    assert on_disk(folder) == ["v00000003.snapshot"]


def test_parts_of_versions_that_were_never_committed_are_dropped_with_the_next(files: ModelFiles, folder: Path) -> None:
    holding(files, 0)
    for chunk in chunks(1, "snapshot")[:2]:
        files.chunk(chunk)
    receive(files, 1, "delta")
    assert on_disk(folder) == ["v00000000.snapshot", "v00000001.delta"]


def test_what_is_of_no_use_is_dropped_and_the_same_version_is_taken_again(files: ModelFiles, folder: Path) -> None:
    holding(files, 2).drop_held()
    assert (files.held, on_disk(folder)) == (None, [])
    assert receive(files, 2, "snapshot") is Step.NEW_VERSION


def test_a_restart_holds_nothing_and_drops_what_was_not_remembered(files: ModelFiles, folder: Path) -> None:
    holding(files, 2)
    again = ModelFiles(folder)
    assert (again.held, again.kept, on_disk(folder)) == (None, None, [])


def test_what_was_remembered_is_held_again_and_deltas_go_on_from_it(files: ModelFiles, folder: Path) -> None:
    # given two versions that were remembered and one that was only begun
    before = holding(files, 2).held
    files.remember(17)
    files.chunk(chunks(3, "delta")[0])
    # when the site comes back, version 3 being the newest
    again = ModelFiles(folder)
    assert again.held is None
    assert again.kept is not None
    assert (again.kept.held, again.kept.offset) == (before, 17)
    again.resume(again.kept, newest=3)
    # then it shows nothing before that version
    assert again.held is None
    assert receive(again, 3, "delta") is Step.NEW_VERSION
    assert again.held is not None
    assert (again.held.version, [d.version for d in again.held.deltas]) == (3, [1, 2, 3])
    assert content(again.held.deltas[1].path) == frames(2)


@pytest.mark.parametrize("damage", ["cut", "gone", "dropped", "retired"])
def test_what_cannot_be_held_again_is_forgotten(files: ModelFiles, folder: Path, damage: str) -> None:
    holding(files, 2).remember(17)
    match damage:
        case "cut":
            (folder / "held.json").write_text('{"offset": 17, "held": {"snap')
        case "gone":
            (folder / "v00000001.delta").unlink()
        case "dropped":
            files.drop_held()
        case "retired":
            receive(files, 3, "snapshot")
            files.discard_retired()
    again = ModelFiles(folder)
    assert (again.kept, on_disk(folder)) == (None, [])
