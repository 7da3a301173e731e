"""An export is the model: written whole, read back in a fresh process, with its card; or nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbus.core.protocol.answers import JobDetail, Provenance, SiteInJob
from fedbus.errors import ExportError, SettingsError, TaskError
from fedbus.export.bundle import compared, write_bundle
from fedbus.export.export import export
from fedbus.export.formats import needs
from fedbus.export.read_back import difference
from fedbus.export.task_model import TaskModel
from fedbus.tasks.digits import Digits
from fedbus.tasks.heart_disease import HeartDisease
from fedbus.training.bundle import BundleParts

INTERVAL = {"value": 0.81234, "low": 0.7, "high": 0.9, "cases": 46}
MERCY = {"metrics": {"auc": 0.81234}, "num_examples": 46, "intervals": {"auc": INTERVAL}}
SCORES = {"mercy": MERCY, "va": {"metrics": {}, "failed": "no memory"}}


def detail(task: str = "heart_disease", config: dict[str, Any] | None = None) -> JobDetail:
    return JobDetail(
        job="heart-0c1d2e3f",
        task=task,
        state="finished",
        version=7,
        updates=21,
        started_at=1.0,
        ended_at=2.0,
        spec={"task": task, "task_config": config or {}, "local": {"steps": 4}, "keep": []},
        result={
            "version": 7,
            "scores": SCORES,
            "best": {"version": 7, "metric": "auc", "value": 0.8},
            "reason": "7 versions made",
        },
        sites={"mercy": SiteInJob(updates=11), "va": SiteInJob(updates=10, refused=1)},
        provenance=Provenance(sha256="ab" * 32, facts=28),
    )


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.safetensors"
    save_file(HeartDisease.network({}).state_dict(), path)
    return path


@pytest.mark.parametrize(("kind", "name"), [("torchscript", "model.pt"), ("onnx", "model.onnx")])
def test_a_model_with_batch_normalisation_is_the_same_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"network": "bn_cnn"}
    network, params = Digits.network(config), tmp_path / "params.safetensors"
    state = {n: t + 0.1 for n, t in network.state_dict().items() if t.is_floating_point()}
    save_file(state, params)
    card = export(detail("digits", config), version=7, params=params, kind=kind, to=Path("out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(["MODEL_CARD.md", "card.json", name])
    assert "without fedbus; its output for an example differs by at most" in card["verified"]


def test_safetensors_come_with_a_card_for_people_and_machines(tmp_path: Path, params: Path) -> None:
    to = tmp_path / "out"
    export(detail(), version=7, params=params, kind="safetensors", to=to)
    assert load_file(to / "model.safetensors").keys() == load_file(params).keys()
    card = json.loads((to / "card.json").read_text())
    assert card["scores"] == SCORES
    assert card["provenance"] == {"sha256": "ab" * 32, "facts": 28}
    assert card["privacy"]["epsilon"] is None
    text = (to / "MODEL_CARD.md").read_text()
    assert "| mercy | 46 | 0.8123 (0.7 to 0.9) |" in text
    assert "| va | could not score it |  |" in text
    assert "No differential privacy" in text
    assert card["params"]["sha256"] in text


def test_scores_of_another_version_are_not_shown_as_those_of_this_one(tmp_path: Path, params: Path) -> None:
    card = export(detail(), version=5, params=params, kind="safetensors", to=tmp_path / "out")
    assert card["scores"] == {}
    assert "was not scored" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def unet() -> Any:
    from monai.networks.nets import UNet

    return UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,), norm="instance").eval()


class Segments:
    """What a task of segmentation says of its network."""

    @staticmethod
    def bundle(config: dict[str, Any]) -> BundleParts:
        network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "norm": "instance"}
        load = [{"_target_": name, "keys": "image"} for name in ("LoadImaged", "EnsureChannelFirstd")]
        return BundleParts(
            network=network | {"channels": [4, 8], "strides": [2]},
            preprocessing=load,
            inferer={"_target_": "SimpleInferer"},
            labels={1: "anterior", 2: "posterior"},
        )


CARD = {"job": "seg-1", "task": "seg", "version": 3, "params": {}, "provenance": None, "privacy": {}}


def test_monai_alone_loads_the_bundle_and_finds_every_tensor(tmp_path: Path) -> None:
    model = TaskModel(task=Segments, network=unet(), example=torch.rand(2, 1, 8, 8, 8))
    said = write_bundle(model, {}, tmp_path, card=CARD)
    assert "loaded by monai.bundle in a fresh process without fedbus, each the same to the bit" in said
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert state.keys() == model.network.state_dict().keys()
    metadata = json.loads((tmp_path / "configs" / "metadata.json").read_text())
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert channels == {"0": "background", "1": "anterior", "2": "posterior"}
    assert (tmp_path / "LICENSE").exists()


def test_a_bundle_of_which_monai_loads_nothing_is_found_out() -> None:
    state, out = {"w": torch.ones(2)}, torch.zeros(1)
    assert "1 tensors loaded" in compared(state, out, {"params.w": torch.ones(2), "output": out})
    for found in ({"params.w": torch.zeros(2), "output": out}, {"output": out}):
        with pytest.raises(ExportError, match="monai-bundle: w is not loaded as it is in the model"):
            compared(state, out, found)


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path, params: Path) -> None:
    to = tmp_path / "out"
    for task, config, says in (
        ("synthetic", {}, "has no network and no example_input, see .*`--format safetensors` needs nothing"),
        ("heart_disease", {"hidden": 4}, "lacks 0.bias, 0.weight, 2.bias and 1 more of the task's network"),
        ("gone", {}, "task 'gone' is not installed here"),
    ):
        with pytest.raises(TaskError, match=says):
            export(detail(task, config), version=7, params=params, kind="torchscript", to=to)
    with pytest.raises(ExportError, match=r"has no bundle\(\): it is no MONAI network"):
        export(detail(), version=7, params=params, kind="monai-bundle", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["params.safetensors"]


def test_what_is_there_is_not_written_over(tmp_path: Path, params: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(SettingsError, match="something is there; name a folder that does not exist, or is empty"):
        export(detail(), version=7, params=params, kind="safetensors", to=tmp_path / "out")


def test_a_difference_that_is_no_rounding_is_an_error() -> None:
    assert difference(torch.tensor([1.0 + 1e-6]), torch.tensor([1.0]), "onnx") < 1e-5
    with pytest.raises(ExportError, match=r"onnx: the export differs from the model by up to 0\.1"):
        difference(torch.tensor([1.1]), torch.tensor([1.0]), "onnx")
    with pytest.raises(ExportError, match=r"expected shape \[1\], the export gives nothing"):
        difference(None, torch.tensor([1.0]), "onnx")


def test_an_extra_that_is_missing_is_said_with_the_command() -> None:
    with pytest.raises(ExportError, match=r"no_such_package is not installed here: pip install 'fedbus\[onnx\]'"):
        needs("no_such_package", "onnx")
