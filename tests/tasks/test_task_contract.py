"""What every built-in task must keep, and the example of a user's own task with them."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import TaskError
from fedbus.imaging.kidneys import Scanner, draw_study, write_study
from fedbus.tasks.digits import Digits
from fedbus.tasks.fashion_mnist import IMAGES, LABELS, FashionMnist
from fedbus.tasks.heart_disease import HeartDisease, write_site_data
from fedbus.tasks.segmentation import Segmentation
from fedbus.tasks.synthetic import Synthetic
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, Task, TrainResult

EXAMPLE = Path(__file__).parents[1] / "training" / "site_package" / "blood_pressure.py"


def example_task() -> Any:
    spec = importlib.util.spec_from_file_location("blood_pressure", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BloodPressure


def write_patients(folder: Path) -> None:
    rng = random.Random(5)
    with (folder / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "weight", "salt", "pressure"])
        writer.writerows([rng.gauss(0, 1) for _ in range(4)] for _ in range(60))


def write_garments(folder: Path) -> None:
    """Files of the data set's shape: noise, so that the test needs nothing installed."""
    rng = random.Random(5)
    images = struct.pack(">4I", 0x803, 60_000, 28, 28) + rng.randbytes(100 * 28 * 28)
    (folder / IMAGES).write_bytes(gzip.compress(images))
    (folder / LABELS).write_bytes(gzip.compress(struct.pack(">2I", 0x801, 60_000) + bytes(range(10)) * 10))
    (folder / "fashion_mnist.json").write_text(json.dumps({"index": 1, "sites": 2}))


def write_share(folder: Path) -> None:
    (folder / "digits.json").write_text(json.dumps({"index": 1, "sites": 4}))


def write_kidney_studies(folder: Path) -> None:
    rng = np.random.default_rng(3)
    scanner = Scanner(spacing=(4.0, 4.0, 4.0), noise=10, gain=1, offset=0)
    for study in range(4):
        write_study(folder / f"case_{study}", *draw_study(scanner, rng), scanner.spacing)


KIDNEYS = {
    "classes": ["kidney", "tumour"],
    "patch_size": [16, 16, 16],
    "network": {"kind": "unet", "channels": [4, 8]},
    "augment": {"flip": {}, "affine": {}, "intensity": {}, "noise": {}},
}

TASKS: dict[str, tuple[Callable[[], Any], Callable[[Path], object], dict[str, Any]]] = {
    "heart_disease": (lambda: HeartDisease, lambda folder: write_site_data(folder, "hungary"), {}),
    "heart_disease-hidden": (lambda: HeartDisease, lambda folder: write_site_data(folder, "hungary"), {"hidden": 8}),
    "digits": (lambda: Digits, write_share, {}),
    "digits-deep": (lambda: Digits, write_share, {"hidden": [16, 16]}),
    "fashion_mnist": (lambda: FashionMnist, write_garments, {"images": 100, "alpha": 10.0}),
    "digits-cnn": (lambda: Digits, write_share, {"network": "cnn"}),
    "digits-bn_cnn": (lambda: Digits, write_share, {"network": "bn_cnn"}),
    "fashion_mnist-mlp": (lambda: FashionMnist, write_garments, {"images": 100, "alpha": 10.0, "network": "mlp"}),
    "fashion_mnist-bn_cnn": (lambda: FashionMnist, write_garments, {"images": 100, "alpha": 10.0, "network": "bn_cnn"}),
    "synthetic": (lambda: Synthetic, lambda folder: None, {"numel": 5000, "tensors": 3}),
    "segmentation": (lambda: Segmentation, write_kidney_studies, KIDNEYS),
    "example": (example_task, write_patients, {}),
}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    make_class, write_data, config = TASKS[request.param]
    write_data(tmp_path)
    cls = make_class()
    made: Task = cls(Site(name="site-a", data=tmp_path, config=config, seed=3, device=torch.device("cpu")))
    return made


def fresh(task: Task, seed: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return task.model()


def trained(task: Task, **local: Any) -> tuple[torch.nn.Module, TrainResult | int]:
    model = fresh(task)
    spec = LocalSpec(**({"steps": 5, "batch_size": 16, "learning_rate": 0.05} | local))
    run = Run(spec, seed=11)
    run.anchor_to(model)
    torch.manual_seed(11)
    return model, task.train(model, run)


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


def test_the_same_seed_makes_the_same_model(task: Task) -> None:
    assert torch.equal(flat(fresh(task)), flat(fresh(task)))
    assert not torch.equal(flat(fresh(task, seed=3)), flat(fresh(task, seed=4)))


def test_train_reports_examples_and_moves_finite_params(task: Task) -> None:
    model, result = trained(task)

    num_examples = result.num_examples if isinstance(result, TrainResult) else result
    assert num_examples > 0
    assert flat(model).isfinite().all()
    assert not torch.equal(flat(model), flat(fresh(task)))


def test_the_same_seed_gives_the_same_training(task: Task) -> None:
    assert torch.equal(flat(trained(task)[0]), flat(trained(task)[0]))


def test_evaluate_gives_finite_metrics_and_changes_nothing(task: Task) -> None:
    model = fresh(task).eval()  # as a session sets it before it asks for scores
    before = flat(model).clone()

    with torch.no_grad():
        scores = task.evaluate(model)

    assert isinstance(scores, Scores)
    assert scores.num_examples > 0
    assert scores.metrics
    assert all(isinstance(value, float) and math.isfinite(value) for value in scores.metrics.values())
    assert torch.equal(flat(model), before)


@pytest.mark.parametrize("name", ["heart_disease", "digits"])
def test_a_strong_proximal_term_keeps_params_near_the_base(name: str, tmp_path: Path) -> None:
    make_class, write_data, config = TASKS[name]
    write_data(tmp_path)
    task = make_class()(Site(name="site-a", data=tmp_path, config=config, seed=3, device=torch.device("cpu")))
    base = flat(fresh(task))

    free = (flat(trained(task, steps=20)[0]) - base).norm()
    held = (flat(trained(task, steps=20, proximal_mu=10.0)[0]) - base).norm()

    assert held < free / 2


@pytest.mark.parametrize("name", ["heart_disease", "digits", "segmentation"])
def test_bf16_autocast_trains_fp32_params(name: str, tmp_path: Path) -> None:
    make_class, write_data, config = TASKS[name]
    write_data(tmp_path)
    task = make_class()(Site(name="site-a", data=tmp_path, config=config, seed=3, device=torch.device("cpu")))

    model, _ = trained(task, autocast_bf16=True)

    assert {param.dtype for param in model.parameters()} == {torch.float32}
    assert flat(model).isfinite().all()


def test_the_example_has_at_most_25_lines_of_code() -> None:
    assert sum(bool(line.strip()) for line in EXAMPLE.read_text().splitlines()) <= 25


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_in_task_config_that_is_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task_config\.step_s to be finite"):
        Synthetic(Site(name="site-a", data=tmp_path, config={"step_s": value}, seed=3, device=torch.device("cpu")))
