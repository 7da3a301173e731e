from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import DataError, TaskError
from fedbus.tasks.digits import Digits
from fedbus.tasks.shares import dirichlet_shares
from fedbus.training.run import Run
from fedbus.training.task import Site

LABELS = np.repeat(np.arange(10), 100)


def site_of(folder: Path, name: str = "site-a", **config: object) -> Site:
    return Site(name=name, data=folder, config=config, seed=0, device=torch.device("cpu"))


def test_every_digit_is_shared_exactly_once() -> None:
    shares = dirichlet_shares(LABELS, 4, 0.3, np.random.default_rng(0))

    assert sorted(np.concatenate(shares).tolist()) == list(range(1000))


def test_a_small_alpha_skews_the_labels_more() -> None:
    def largest_label_share(alpha: float) -> float:
        shares = dirichlet_shares(LABELS, 4, alpha, np.random.default_rng(0))
        return float(np.mean([np.bincount(LABELS[share], minlength=10).max() / len(share) for share in shares]))

    assert largest_label_share(0.1) > 2 * largest_label_share(1000.0)


def test_too_many_sites_are_refused() -> None:
    with pytest.raises(DataError, match="raise alpha"):
        dirichlet_shares(LABELS, 200, 0.1, np.random.default_rng(0))


def test_the_share_of_a_site_comes_from_its_folder_before_the_job(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "digits.json").write_text(json.dumps({"index": 2, "sites": 3}))
    local = Run(LocalSpec(steps=1, batch_size=8, learning_rate=0.1))

    def examples(site: Site) -> int:
        return Digits(site).train(torch.nn.Linear(64, 10), local)

    by_list = [examples(site_of(tmp_path, name=name, sites=("a", "b", "c"))) for name in "abc"]
    by_folder = examples(site_of(tmp_path / "folder", name="a", sites=("a", "b", "c")))

    assert by_folder == by_list[2] != by_list[0]
    assert sum(by_list) == pytest.approx(0.8 * 1797, abs=3)


@pytest.mark.parametrize(
    "text",
    [
        '{"index": 4, "sites": 4}',
        '{"index": 0}',
        "[]",
        "not json",
        '{"index": "0", "sites": 2}',
        '{"index": false, "sites": 2}',
    ],
)
def test_a_wrong_share_says_what_was_expected(text: str, tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text(text)

    with pytest.raises(DataError, match="expected"):
        Digits(site_of(tmp_path))


def test_a_share_saved_by_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text('{"index": 0, "sites": 2}', encoding="utf-8-sig")

    assert Digits(site_of(tmp_path))


def test_a_site_that_the_job_names_twice_has_no_share(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="name each site once"):
        Digits(site_of(tmp_path, sites=["site-a", "site-b", "site-a"]))


def test_a_site_without_a_share_is_told_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"digits\.json"):
        Digits(site_of(tmp_path, sites=["somebody-else"]))


@pytest.mark.parametrize("config", [{"alpha": 0}, {"alpha": "small"}, {"split": 1}])
def test_a_wrong_task_config_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="task_config"):
        Digits(site_of(tmp_path, **config))


def said_with_another_scikit_learn(folder: Path, module: str, text: str) -> str:
    """What the task says in a process of its own, in which `module` is `text` instead of scikit-learn."""
    (folder / "digits.json").write_text('{"index": 0, "sites": 2}')
    path = folder / module
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import torch; from pathlib import Path\n"
        "from fedbus.tasks.digits import Digits; from fedbus.training.task import Site\n"
        f"Digits(Site(name='a', data=Path({str(folder)!r}), config={{}}, seed=0, device=torch.device('cpu')))\n"
    )

    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr


def test_without_scikit_learn_the_error_says_what_to_install(tmp_path: Path) -> None:
    said = said_with_another_scikit_learn(tmp_path, "sklearn.py", "raise ImportError('none here')")

    assert "MissingPackageError" in said
    assert "pip install 'fedbus[digits]'" in said


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        ("full((20, 64), 0.5)", "arange(20) % 10", "the brightest of 20 images is 0.5: were they scaled before"),
        ("full((20, 64), 255)", "arange(20) % 10", "expected pixels from 0 to 16, got 255 to 255"),
        ("eye(64) * 16", "arange(64) % 11", "expected labels from 0 to 9, got 0 to 10"),
        ("eye(49) * 16", "arange(49) % 10", "expected images of 64 pixels"),
    ],
)
def test_digits_that_are_none_are_refused(data: str, target: str, message: str, tmp_path: Path) -> None:
    module = (
        "from types import SimpleNamespace\nfrom numpy import arange, eye, full\n"
        f"def load_digits(): return SimpleNamespace(data={data}, target={target})\n"
    )
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").touch()

    said = said_with_another_scikit_learn(tmp_path, "sklearn/datasets.py", module)

    assert "DataError" in said
    assert message in said


@pytest.mark.parametrize("config", [{"network": "resnet"}, {"network": None}, {"network": "cnn", "hidden": [8]}])
def test_a_network_that_is_none_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="network"):
        Digits(site_of(tmp_path, sites=["site-a"], **config))


@pytest.mark.parametrize("hidden", [[10**9], [0], ["64"], "64", 64, [64.0]])
def test_widths_that_are_none_are_refused(hidden: object, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="hidden"):
        Digits(site_of(tmp_path, hidden=hidden))


def test_the_model_is_as_wide_and_deep_as_the_job_says(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text('{"index": 0, "sites": 1}')

    def numel(**config: object) -> int:
        return sum(param.numel() for param in Digits(site_of(tmp_path, **config)).model().parameters())

    assert numel() == numel(hidden=[64]) == 4810
    assert numel(hidden=[64, 64]) == 8970


def test_its_own_sgd_is_that_of_torch(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text('{"index": 0, "sites": 1}')
    task = Digits(site_of(tmp_path))
    torch.manual_seed(0)
    model = task.model()
    other = copy.deepcopy(model)
    images, labels = task._train

    task.train(model, Run(LocalSpec(steps=7, batch_size=16, learning_rate=0.1), seed=5))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for rows in Run(LocalSpec(steps=7, batch_size=16, learning_rate=0.1), seed=5).batches(len(labels)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(other(images[rows]), labels[rows]).backward()
        optimizer.step()

    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_training_learns_the_digits(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text('{"index": 0, "sites": 1}')
    task = Digits(site_of(tmp_path))
    torch.manual_seed(0)
    model = task.model()

    task.train(model, Run(LocalSpec(epochs=8, batch_size=16, learning_rate=0.1)))

    assert task.evaluate(model).metrics["accuracy"] > 0.9
