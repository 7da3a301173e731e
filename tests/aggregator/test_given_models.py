"""The models of a job that evaluates: copied once, whatever becomes of where they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbus.aggregator.job.evaluate import GivenModels
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.errors import LayoutError
from fedbus.store.ledger import Ledger

Said = Callable[[Layout], m.UpdateManifest]
LAYOUT = Layout.of([TensorSpec(name="w", shape=(3,), dtype="float32")])


class Shelf:
    """An aggregator's folders with a job `old` that has ended, and a params file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.ledger.add_job("old", {"name": "old"}, message_id="m", submitted_by="ana", state="finished", at=1.0)
        self.ledger.set_job("old", result={"version": 7})
        (folder / "jobs" / "old").mkdir(parents=True)
        self.final = folder / "jobs" / "old" / "final.safetensors"
        save_file({"w": torch.tensor([1.0, 2.0, 3.0])}, self.final)
        (folder / "params").mkdir()
        save_file({"w": torch.tensor([4.0, 5.0, 6.0])}, folder / "params" / "mine.safetensors")

    def models(self, *models: dict[str, Any]) -> GivenModels:
        """Those of a job; made anew is the aggregator restarted."""
        spec = EvaluateSpec.parse({"kind": "evaluate", "name": "e", "task": "t", "models": list(models)})
        tools: Any = SimpleNamespace(ledger=self.ledger)
        jobs, params = self.folder / "jobs", self.folder / "params"
        return GivenModels(spec, folder=jobs / "new" / "models", jobs=jobs, params=params, tools=tools)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_version_and_a_file_are_copied_and_named(shelf: Shelf, said: Said) -> None:
    models = shelf.models({"job": "old"}, {"file": "mine.safetensors"})
    models.check()
    assert [models.named(number) for number in (0, 1)] == ["old, version 7 (last)", "mine.safetensors"]
    assert load_file(models.path(0))["w"].tolist() == [1.0, 2.0, 3.0]
    assert models.adopt(said(LAYOUT)) == LAYOUT


def test_after_a_restart_the_copies_are_scored_though_the_job_was_forgotten(shelf: Shelf) -> None:
    shelf.models({"job": "old"}).check()
    # given that where it came from is gone by the time the aggregator is started anew
    shelf.final.unlink()
    shelf.ledger.forget_job("old")
    again = shelf.models({"job": "old"})
    again.check()
    assert again.named(0) == "old, version 7 (last)"
    assert load_file(again.path(0))["w"].tolist() == [1.0, 2.0, 3.0]


def test_a_copy_that_a_kill_cut_short_is_made_again(shelf: Shelf) -> None:
    models = shelf.models({"job": "old"})
    models.path(0).parent.mkdir(parents=True)
    models.path(0).write_bytes(b"half of it")
    models.check()
    assert load_file(models.path(0))["w"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"job": "none"}, "models.0: no job 'none': `fedbus jobs` lists them"),
        ({"job": "old", "version": 3}, "models.0: version 3 of old is not kept; kept are: 7"),
        ({"job": "old", "version": "best"}, "models.0: no version of old has a score that makes it the best"),
        ({"file": "none.safetensors"}, "models.0: .*none.safetensors"),
    ],
)
def test_a_model_that_is_not_there_is_named(shelf: Shelf, model: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        shelf.models(model).check()


def test_a_model_of_another_network_is_named(shelf: Shelf, said: Said) -> None:
    models = shelf.models({"job": "old"})
    models.check()
    other = Layout.of([TensorSpec(name="w", shape=(4,), dtype="float32")])
    with pytest.raises(LayoutError, match=r"w is F32 \[3\], the task's model has float32 \[4\]"):
        models.adopt(said(other))
