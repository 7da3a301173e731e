"""The task on drawn kidneys: networks, scores of whole studies, and a class that a site has not labelled."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.tasks.segmentation import Segmentation
from fedbus.tasks.segmentation.config import read_config
from fedbus.tasks.segmentation.networks import make_network
from fedbus.tasks.segmentation.windows import logits_of
from fedbus.training.run import Run
from fedbus.training.task import Site
from tests.small_kidneys import CONFIG, write_studies


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten studies; nobody has outlined the tumour of the first five."""
    made = tmp_path_factory.mktemp("kidneys")
    ids = [f"case_{study}" for study in range(10)]
    write_studies(made / "all", ids, np.random.default_rng(1))
    write_studies(made / "kidney", ids, np.random.default_rng(1), tumours=False)
    return made


def task_on(folder: Path, **changes: Any) -> Segmentation:
    return Segmentation(Site(name="a", data=folder, config=CONFIG | changes, seed=1, device=torch.device("cpu")))


def model_of(task: Segmentation) -> torch.nn.Module:
    torch.manual_seed(1)
    return task.model()


def train(task: Segmentation, model: torch.nn.Module, steps: int) -> Run:
    run = Run(LocalSpec(steps=steps, batch_size=4, learning_rate=0.01), seed=1)
    model.train()
    assert task.train(model, run) == 10 - len(task.test_cases)
    model.eval()
    return run


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "unet", "channels": [4, 8], "res_units": 1, "norm": "batch"},
        {"kind": "segresnet", "filters": 4, "blocks_down": [1, 1]},
        {"kind": "segresnet", "filters": 4, "blocks_down": [1, 1], "norm": "batch"},
        {"kind": "dynunet", "channels": [4, 8, 16]},
        {"kind": "dynunet", "channels": [4, 8, 8], "norm": "batch"},
    ],
)
def test_every_network_answers_with_a_channel_per_class_and_the_background(network: dict[str, Any]) -> None:
    net = make_network(read_config(CONFIG | {"network": network}))

    assert net(torch.zeros(2, 1, 16, 16, 16)).shape == (2, 3, 16, 16, 16)
    statistics = [name for name in net.state_dict() if "running_mean" in name]
    assert bool(statistics) == (network.get("norm") == "batch")


def test_it_learns_and_scores_each_class_of_whole_studies(folder: Path) -> None:
    task = task_on(folder / "all")
    model = model_of(task)
    before = task.evaluate(model.eval()).metrics

    run = train(task, model, 30)

    scores = task.evaluate(model)
    assert scores.num_examples == len(task.test_cases) >= 1
    assert scores.metrics["dice/kidney"] > 0.7 > before["dice/kidney"]
    assert scores.metrics["loss"] < before["loss"]
    assert set(scores.metrics) == {"dice", "dice/kidney", "dice/tumour", "loss"}
    assert len(scores.cases["dice/tumour"]) == scores.num_examples
    assert 0 <= run.data_wait_s < 30


def test_a_site_that_labels_one_class_does_not_unlearn_the_other(folder: Path) -> None:
    """A model that finds tumours still finds them after it was trained where nobody outlined one."""
    whole, part = task_on(folder / "all"), task_on(folder / "kidney")
    model = model_of(whole)
    train(whole, model, 60)
    before = whole.evaluate(model).metrics

    train(part, model, 20)

    after = whole.evaluate(model).metrics
    scores = part.evaluate(model)
    assert before["dice/tumour"] > 0.3
    assert after["dice/tumour"] > before["dice/tumour"] / 2
    assert "dice/tumour" not in scores.metrics
    assert math.isfinite(scores.metrics["dice"])


def test_windows_that_slide_over_a_study_give_what_one_pass_gives(folder: Path) -> None:
    task = task_on(folder / "all", patch_size=[16, 8, 12])
    case = task.test_cases[0]
    model = torch.nn.Conv3d(1, 3, 1)  # sees one voxel, so that windows make no difference
    assert case.image.shape == (24, 16, 16)

    with torch.no_grad():
        found = logits_of(model, case, task.config, torch.device("cpu"))
        whole = model(torch.tensor(case.image)[None, None])

    assert torch.allclose(found, whole, atol=1e-4)


def test_without_monai_the_command_to_install_it_is_said(folder: Path) -> None:
    program = (
        "import sys; sys.modules['monai'] = None\n"
        "import torch; from pathlib import Path\n"
        "from fedbus.tasks.segmentation import Segmentation; from fedbus.training.task import Site\n"
        f"Segmentation(Site(name='a', data=Path({str(folder / 'all')!r}), config={{'classes': ['kidney', 'tumour']}}, "
        "seed=0, device=torch.device('cpu')))\n"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr

    assert "MissingPackageError: the task segmentation needs a package that is not installed here: " in said
    assert "pip install 'fedbus[monai]'" in said
