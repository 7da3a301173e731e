"""Checkpoints: the newest that can be read, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedbus.errors import StoreError
from fedbus.store.checkpoints import Checkpoints

SmallFiles = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def checkpoint(version: int, numel: int = 4) -> dict[str, Any]:
    params = np.linspace(-1, 1, numel, dtype=np.float32) * (version + 1)
    return {
        "version": version,
        "fact_seq": 10 * version,
        "digest": f"{version:016x}",
        "arrays": {"params": params, "steps": np.array([version], dtype=np.int64)},
    }


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_a_checkpoint_there_is_none(folder: Path) -> None:
    assert Checkpoints(folder).newest() is None


def test_a_checkpoint_comes_back_to_the_bit_and_may_be_written_to(folder: Path) -> None:
    saved = checkpoint(3)
    Checkpoints(folder).save(**saved)
    found = Checkpoints(folder).newest()
    assert found is not None
    assert (found.version, found.fact_seq, found.digest) == (3, 30, "0000000000000003")
    arrays = found.read()
    assert arrays.keys() == saved["arrays"].keys()
    for name, array in saved["arrays"].items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].tobytes() == array.tobytes()
        assert arrays[name].flags.writeable


def test_others_read_it_as_safetensors(folder: Path) -> None:
    saved = checkpoint(3)
    found = load_file(Checkpoints(folder).save(**saved))
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in saved["arrays"].items()
    }


def test_the_newest_is_the_highest_version_also_beyond_nine(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    for version in (9, 10, 11):
        checkpoints.save(**checkpoint(version))
    found = checkpoints.newest()
    assert found is not None
    assert found.version == 11


def test_only_two_are_kept(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    for version in range(5):
        checkpoints.save(**checkpoint(version))
    assert files(folder) == ["v00000003.safetensors", "v00000004.safetensors"]


def test_a_version_saved_again_replaces_itself(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    checkpoints.save(**checkpoint(0))
    checkpoints.save(**checkpoint(0, numel=8))
    found = checkpoints.newest()
    assert found is not None
    assert found.read()["params"].shape == (8,)


@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "garbage", "no metadata", "a folder"])
def test_a_damaged_newest_falls_back_to_the_one_before(folder: Path, damage: str) -> None:
    checkpoints = Checkpoints(folder)
    checkpoints.save(**checkpoint(1))
    path = checkpoints.save(**checkpoint(2))
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[:-5])
        case "longer":
            path.write_bytes(content + b"more")
        case "garbage":
            path.write_bytes(b"\xff" * len(content))
        case "no metadata":
            save_file({"params": np.zeros(4, dtype=np.float32)}, path)
        case "a folder":
            path.unlink()
            path.mkdir()
    found = checkpoints.newest()
    assert found is not None
    assert found.version == 1


def test_a_checkpoint_that_goes_while_it_is_read_is_an_error_of_the_store(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    checkpoints.save(**checkpoint(1))
    found = checkpoints.newest()
    assert found is not None
    found.path.unlink()
    with pytest.raises(StoreError, match=f"cannot read {found.path}"):
        found.read()


def test_all_that_can_be_read_come_newest_first(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    checkpoints.save(**checkpoint(1))
    checkpoints.save(**checkpoint(2))
    assert [c.version for c in checkpoints.newest_first()] == [2, 1]


def test_a_checkpoint_that_does_not_fit_is_said_and_leaves_the_others(folder: Path, small_files: SmallFiles) -> None:
    checkpoints = Checkpoints(folder)
    checkpoints.save(**checkpoint(1))
    with small_files(4096), pytest.raises(StoreError, match=r"cannot write .*v00000002"):
        checkpoints.save(**checkpoint(2, numel=10_000))
    assert files(folder) == ["v00000001.safetensors"]
    assert checkpoints.newest() is not None


def test_what_a_kill_left_half_written_is_deleted_at_the_next_start(folder: Path) -> None:
    Checkpoints(folder).save(**checkpoint(1))
    (folder / ".v00000002.safetensors.tmp-4711").write_bytes(b"half a model")
    Checkpoints(folder)
    assert files(folder) == ["v00000001.safetensors"]
