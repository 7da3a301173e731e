"""Sites with different scanners, and networks with BatchNorm: what a comparison of the two needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import TaskError
from fedbus.tasks.digits import Digits
from fedbus.tasks.networks import NETWORKS, small_cnn
from fedbus.tasks.scanners import DEFAULTS, Scanner, same_tests
from fedbus.training.run import Run
from fedbus.training.task import Site

OTHER = {"scanner_sites": 2, "scanner_scale": 0.5, "scanner_shift": 0.25}


def digits(folder: Path, index: int, **config: object) -> Digits:
    (folder / "digits.json").write_text(json.dumps({"index": index, "sites": 4}))
    return Digits(Site(name=f"site-{index}", data=folder, config=config, seed=0, device=torch.device("cpu")))


def scanner(index: int = 3, **keys: object) -> Scanner:
    return Scanner.of({**DEFAULTS, **keys}, index=index, sites=4)


def test_the_last_sites_have_the_other_scanner() -> None:
    assert [scanner(index, **OTHER) for index in range(4)] == [
        Scanner(),
        Scanner(),
        Scanner(scale=0.5, shift=0.25),
        Scanner(scale=0.5, shift=0.25),
    ]


def test_a_scanner_scales_and_shifts_and_the_usual_one_changes_no_bit() -> None:
    images = torch.tensor([0.0, 0.5, 1.0])

    assert scanner(**OTHER).scan(images).tolist() == [0.25, 0.5, 0.75]
    assert scanner(0, **OTHER).scan(images) is images


@pytest.mark.parametrize(
    "keys",
    [
        {"scanner_sites": 2},
        {"scanner_scale": 0.5},
        {"scanner_shift": 0.25},
        {**OTHER, "scanner_sites": 5},
        {**OTHER, "scanner_sites": -1},
        {**OTHER, "scanner_scale": 0.0},
        {**OTHER, "scanner_scale": float("nan")},
        {**OTHER, "scanner_shift": float("inf")},
    ],
)
def test_scanners_that_make_no_sense_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(TaskError, match="task_config"):
        scanner(**keys)


@pytest.mark.parametrize("shared_test", [False, True])
def test_a_site_trains_on_and_is_tested_on_what_its_scanner_gives(shared_test: bool, tmp_path: Path) -> None:
    plain = digits(tmp_path, 3, shared_test=shared_test)
    other = digits(tmp_path, 3, shared_test=shared_test, **OTHER)

    for (before, labels), (after, same_labels) in ((plain._train, other._train), (plain._test, other._test)):
        assert torch.equal(after, before * 0.5 + 0.25)
        assert torch.equal(labels, same_labels)


def test_the_other_sites_data_stay_as_they_are(tmp_path: Path) -> None:
    assert torch.equal(digits(tmp_path, 0)._train[0], digits(tmp_path, 0, **OTHER)._train[0])


def test_with_two_scanners_the_scores_of_one_site_are_not_those_of_all() -> None:
    assert same_tests({"shared_test": True})
    assert not same_tests({"shared_test": True, **OTHER})
    assert not same_tests({})


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_the_digits(network: str, tmp_path: Path) -> None:
    task = digits(tmp_path, 0, network=network, alpha=100.0)
    torch.manual_seed(0)
    model = task.model()

    task.train(model.train(), Run(LocalSpec(epochs=20, batch_size=16, learning_rate=0.1)))

    assert task.evaluate(model.eval()).metrics["accuracy"] > 0.85


def test_only_the_network_with_batchnorm_has_state_that_is_not_learnt(tmp_path: Path) -> None:
    buffers = {name: [key for key, _ in digits(tmp_path, 0, network=name).model().named_buffers()] for name in NETWORKS}

    assert buffers["mlp"] == buffers["cnn"] == []
    assert [key.rpartition(".")[2] for key in buffers["bn_cnn"]] == 2 * [
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]


def test_the_images_are_as_large_as_the_network_expects() -> None:
    for side in (8, 28):
        model = torch.nn.Sequential(*small_cnn(side=side, classes=10, batch_norm=True))
        assert model(torch.zeros(2, 1, side, side)).shape == (2, 10)
