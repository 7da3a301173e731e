"""Params as bytes, of an export and of a checkpoint, and how long the aggregator keeps a fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedbus.aggregator.desk.fetches import IDLE_S, MOST_ASKED, MOST_FETCHES, Fetches, Part
from fedbus.aggregator.job.kept_versions import KeptVersions
from fedbus.aggregator.model.params_bytes import OfCheckpoint, OfFile
from fedbus.core.protocol.answers import ParamsOffer
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.requests import PartQuery
from fedbus.errors import StoreError
from fedbus.export.params_file import write_params
from fedbus.store.checkpoints import Checkpoints
from fedbus.store.rows import JobRow

LAYOUT = Layout(
    tensors=(
        TensorSpec(name="a", shape=(3,), dtype="float16"),
        TensorSpec(name="b", shape=(2, 3), dtype="float64"),
        TensorSpec(name="c", shape=(5,), dtype="float32", aliases=("tied",)),
        TensorSpec(name="d", shape=(), dtype="bfloat16"),
        TensorSpec(name="e", shape=(0, 4), dtype="float32"),
    )
)


def row(**changes: Any) -> JobRow:
    known: dict[str, Any] = {"job": "heart", "spec": {}, "state": "running", "reason": "", "layout": LAYOUT.to_dict()}
    times: dict[str, Any] = {"submitted_at": 1.0, "started_at": 1.0, "ended_at": None}
    return JobRow(**known | {"submitted_by": "ana", "result": None} | times | changes)


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.linspace(-2, 2, LAYOUT.numel)


@pytest.fixture
def folder(tmp_path: Path, hidden: torch.Tensor) -> Path:
    """A job with checkpoints of versions 3 and 5."""
    checkpoints = Checkpoints(tmp_path / "heart" / "checkpoints")
    for version in (3, 5):
        arrays = {"params": hidden.numpy() + 1, "hidden": hidden.numpy()}
        checkpoints.save(version=version, fact_seq=1, digest="d", arrays=arrays)
    return tmp_path / "heart"


@pytest.mark.parametrize("part", [1, 7, 64, 10_000])
def test_a_checkpoint_is_read_in_parts_as_its_export_would_be(folder: Path, hidden: torch.Tensor, part: int) -> None:
    export = folder / "export.safetensors"
    write_params(export, hidden, LAYOUT, {"job": "heart", "digest": "d"})
    expected = export.read_bytes()
    for params in (OfCheckpoint(folder / "checkpoints" / "v00000005.safetensors", LAYOUT, job="heart"), OfFile(export)):
        assert params.size_bytes == len(expected)
        assert b"".join(params.read(at, part) for at in range(0, len(expected), part)) == expected
        params.close()


def test_what_is_kept_is_said_where_it_is_not_what_is_wanted(folder: Path) -> None:
    assert KeptVersions(folder, row()).open("last")[0] == 5
    assert KeptVersions(folder, row()).open(3)[0] == 3
    with pytest.raises(StoreError, match="version 4 of heart is not kept; kept are: 3, 5"):
        KeptVersions(folder, row()).open(4)
    with pytest.raises(StoreError, match="no version of heart has a score that makes it the best; kept are: 3, 5"):
        KeptVersions(folder, row()).open("best")
    with pytest.raises(StoreError, match="expected a version"):
        KeptVersions(folder, row()).open(True)


async def at_once(function: Any, *args: Any) -> Any:
    return function(*args)


class Clock:
    now = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetches(folder: Path, clock: Clock) -> Fetches:
    return Fetches(folder.parent, worker=at_once, publisher=None, clock=lambda: clock.now)  # type: ignore[arg-type]


async def offered(fetches: Fetches) -> ParamsOffer:
    answer = await fetches.begin(row(), "last", "ana")
    assert isinstance(answer, ParamsOffer)
    return answer


async def test_a_fetch_that_nobody_goes_on_with_is_let_go(fetches: Fetches, clock: Clock) -> None:
    begun = [await offered(fetches) for _ in range(MOST_FETCHES)]
    part = fetches.take(PartQuery(of=begun[0].of, offset=0), "ana")
    assert isinstance(part, Part)
    assert "fetches are under way" in str(await fetches.begin(row(), "last", "ana"))
    clock.now += IDLE_S + 1
    assert await offered(fetches)
    # the one of which a part is being sent is still there, the others are not
    there = [isinstance(fetches.take(PartQuery(of=b.of, offset=0), "ana"), Part) for b in begun]
    assert there == [True] + [False] * (MOST_FETCHES - 1)


async def test_a_fetch_is_its_logins_own_and_bounded(fetches: Fetches) -> None:
    name = (await offered(fetches)).of
    assert "no such fetch" in str(fetches.take(PartQuery(of=name, offset=0), "eve"))
    assert "expected a byte of the file" in str(fetches.take(PartQuery(of=name, offset=10**9), "ana"))
    taken = [fetches.take(PartQuery(of=name, offset=0), "ana") for _ in range(MOST_ASKED + 1)]
    assert [isinstance(part, Part) for part in taken] == [True] * MOST_ASKED + [False]
