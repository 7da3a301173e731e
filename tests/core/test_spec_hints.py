"""Keys and kinds in the words of other frameworks get the name that they have here."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.spec import hints as spec_hints
from fedbus.core.spec.reference import keys
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError

LOCAL = {"steps": 40, "batch_size": 32, "learning_rate": 0.01}
SPEC = {"name": "heart", "task": "heart_disease", "local": LOCAL, "stop": {"versions": 5}}


def problem(**more: Any) -> str:
    with pytest.raises(JobSpecError) as caught:
        TrainingSpec.parse(SPEC | more)
    (found,) = caught.value.problems
    return found.message


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("lr", "local.learning_rate"),
        ("rounds", "stop.versions"),
        ("num_rounds", "stop.versions"),
        ("num-server-rounds", "stop.versions"),
        ("rounds_to_train", "stop.versions"),
        ("min_clients", "min_sites"),
        ("min_available_clients", "min_sites"),
        ("num_clients", "min_sites"),
        ("clients", "sites"),
        ("fraction_fit", "strategy.k"),
        ("local_epochs", "local.epochs"),
        ("num_local_epochs", "local.epochs"),
        ("batch", "local.batch_size"),
        ("server_lr", "server_optimizer.lr"),
        ("mixed_precision", "local.autocast_bf16"),
        ("model", "task"),
    ],
)
def test_a_key_of_another_framework_gets_its_name_here(key, path):
    assert problem(**{key: 1}).startswith(f"unknown key; here it is {path}")


@pytest.mark.parametrize("key", ["epochs", "batch_size", "learning_rate"])
def test_a_key_of_a_section_at_the_top_gets_its_path(key):
    assert f"local.{key}" in problem(**{key: 1})


def test_a_word_means_what_its_section_is_about():
    assert "server_optimizer.lr" in problem(server_optimizer={"kind": "adam", "learning_rate": 1.0})
    assert "local.learning_rate" in problem(local=LOCAL | {"lr": 1.0})
    assert "staleness.a" in problem(strategy="sync", staleness={"kind": "polynomial", "alpha": 1.0})


def test_what_is_no_part_of_a_job_is_said_to_be_elsewhere():
    assert "task_config" in problem(momentum=0.9)
    assert "setting of each site" in problem(device="cuda")


@pytest.mark.parametrize(
    ("section", "value", "kind"),
    [
        ("strategy", "FedAvg", "sync"),
        ("strategy", "fedbuff", "buffered"),
        ("strategy", "FedProx", "sync, with local.proximal_mu"),
        ("server_optimizer", "sgd", "plain"),
        ("robust", "krum", "multi_krum"),
    ],
)
def test_a_kind_of_another_framework_gets_its_name_here(section, value, kind):
    assert problem(**{section: value}).endswith(f"; what you mean is here {kind}")


def test_every_hint_points_to_a_key_that_there_is():
    targets = {*spec_hints.PATHS.values(), *(path for table in spec_hints.SECTIONS.values() for path in table.values())}

    assert targets <= {key.path for key in keys()}
    assert not set(spec_hints.PATHS) & set(spec_hints.SENTENCES)
