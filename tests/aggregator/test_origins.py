"""Where a training's first params come from, other than a site: a file, or a version that another job has left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedbus.aggregator.job.origins import origin_of
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import LayoutError
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool

Said = Callable[[Layout], m.UpdateManifest]
W, V = (TensorSpec(name=name, shape=(numel,), dtype="float32") for name, numel in (("w", 3), ("v", 1)))
LAYOUT = Layout.of([W, V])
JOB: dict[str, Any] = {
    "name": "new",
    "task": "t",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 1},
}


class Shelf:
    """An aggregator's folders with a job `old` that has ended with version 7, of which 5 was the best."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.ledger.add_job("old", JOB, message_id="m", submitted_by="ana", state="finished", at=1.0)
        self.ledger.set_job("old", result={"version": 7, "best": {"version": 5}})
        (folder / "jobs" / "old" / "best").mkdir(parents=True)
        (folder / "params").mkdir()
        self.save(7.0, folder / "jobs" / "old" / "final.safetensors")
        self.save(5.0, folder / "jobs" / "old" / "best" / "v00000005.safetensors")

    def save(self, value: float, path: Path) -> None:
        save_file({"w": torch.full((3,), value), "v": torch.tensor([value])}, path)

    def origin(self, **spec: Any) -> tuple[ModelKeeper, Any]:
        """That of a new job; made anew is the aggregator restarted."""
        parsed = TrainingSpec.parse(JOB | spec)
        folder = self.folder / "jobs" / "new"
        keeper = ModelKeeper("new", parsed, ledger=self.ledger, spool=Spool(self.folder / "spool"), folder=folder)
        jobs, params = self.folder / "jobs", self.folder / "params"
        return keeper, origin_of(parsed, keeper, job="new", jobs=jobs, params=params, ledger=self.ledger)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.mark.parametrize(
    ("continues", "value", "says"),
    [
        ("old", 5.0, "version 5 of old"),
        ({"job": "old", "version": "last"}, 7.0, "version 7 of old"),
        ({"job": "old", "version": 7}, 7.0, "version 7 of old"),
    ],
)
def test_a_job_begins_with_the_version_that_another_one_has_left(
    shelf: Shelf, continues: Any, value: float, says: str, said: Said
) -> None:
    keeper, origin = shelf.origin(continues=continues)
    origin.check()
    assert origin.file == says
    assert origin.adopt(said(LAYOUT)) == LAYOUT
    assert keeper.model.params.tolist() == [value] * 4
    assert not (shelf.folder / "jobs" / "new" / "start").exists()


def test_after_a_restart_the_copy_is_used_though_the_job_was_forgotten(shelf: Shelf, said: Said) -> None:
    shelf.origin(continues="old")[1].check()
    shutil.rmtree(shelf.folder / "jobs" / "old")
    shelf.ledger.forget_job("old")
    keeper, origin = shelf.origin(continues="old")
    origin.check()
    origin.adopt(said(LAYOUT))
    assert keeper.model.params.tolist() == [5.0] * 4


def test_what_may_not_be_continued_says_what_to_do(shelf: Shelf) -> None:
    with pytest.raises(LayoutError, match="continues: no job 'none': `fedbus jobs` lists them"):
        shelf.origin(continues="none")[1].check()
    with pytest.raises(LayoutError, match="continues: version 3 of old is not kept; kept are: 5, 7"):
        shelf.origin(continues={"job": "old", "version": 3})[1].check()
    shelf.ledger.set_job("old", state="running")
    with pytest.raises(LayoutError, match="continues: job old is running: submit again when it has ended"):
        shelf.origin(continues="old")[1].check()


def test_another_network_is_said_with_the_first_tensor_that_differs(shelf: Shelf, said: Said) -> None:
    _, origin = shelf.origin(continues="old")
    origin.check()
    wider = Layout.of([TensorSpec(name="w", shape=(4,), dtype="float32")])
    with pytest.raises(LayoutError, match=r"continues: version 5 of old: w is F32 \[3\], the task.*\[4\]"):
        origin.adopt(said(wider))


def test_tensors_that_stay_at_the_sites_now_may_be_in_the_version(shelf: Shelf, said: Said) -> None:
    keeper, origin = shelf.origin(continues="old", keep=["v"])
    origin.check()
    origin.adopt(said(Layout.of([W])))
    assert keeper.model.params.tolist() == [5.0] * 3


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_a_file_that_cannot_be_used_is_named_with_what_to_do(shelf: Shelf, content: bytes | None) -> None:
    path = shelf.folder / "params" / "pretrained.safetensors"
    if content is not None:
        path.write_bytes(content)
    _, origin = shelf.origin(initial_params=path.name)
    with pytest.raises(LayoutError, match=rf"initial_params: cannot read {path}: .*put the file there or correct"):
        origin.check()
