"""A network as public ones are: running statistics, tied weights, frozen params, extra state, over the real bus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_model

from fedbus.local.federation import wait_until
from tests.waits import SOON

from .conftest import QUICK_STATUS
from .site_package.ward_tasks import Network

KEEPING = {"keep_updates": 1, "checkpoint_interval_s": 0.2}
SITE_PACKAGE = Path(__file__).with_name("site_package")
STATISTICS = {"norm.running_mean", "norm.running_var"}


@pytest.fixture
def start_site(house, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SITE_PACKAGE), prepend=os.pathsep)

    def start(name: str):
        data = tmp_path / "data" / name
        data.mkdir(parents=True, exist_ok=True)
        (data / "readme.txt").touch()
        return house.start_site(name, data=data, step_delay_s=0.02, **QUICK_STATUS)

    return start


def submit(house, **keys):
    local = house.spec()["local"] | {"evaluate": True}
    spec = {"task": "public_network", "task_config": {}, "min_sites": 2, "local": local, "stop": {"versions": 12}}
    return house.submit(**spec | keys)


def exported(house, job: str) -> dict[str, torch.Tensor]:
    return load_file(house.folder / "aggregator" / "jobs" / job / "final.safetensors")


def test_it_ends_as_a_network_that_scores_and_its_replay_is_the_same_to_the_bit(house, start_site):
    house.start_aggregator(**KEEPING)
    for site in ("site-a", "site-b"):
        start_site(site)
    job = submit(house, strategy="calibrated", server_optimizer={"kind": "adam", "lr": 0.01})
    house.committed(5)
    house.kill(house.aggregator)
    house.start_aggregator(**KEEPING)
    house.ended(job)

    found = exported(house, job)
    fresh = Network()
    missing, unexpected = fresh.load_state_dict(found, strict=False)
    assert (set(missing), unexpected) == ({"_extra_state"}, [])
    assert (found["norm.running_var"] > 0).all()
    assert not torch.equal(found["norm.running_var"], torch.ones(6))
    assert torch.equal(found["weight.weight"], found["head.weight"])
    result = house.job(job)["result"]
    assert all(score["metrics"]["loss"] > 0 for score in result["scores"].values())
    assert house.refused_in_time(job) == []
    (row,) = house.fedbus("replay", str(house.folder / "aggregator"), "-o", "json").json
    assert (row["identical"], row["gone"]) == (True, 0)


def test_what_a_job_keeps_at_the_sites_stays_there_and_outlives_their_trainers(house, start_site):
    house.start_aggregator()
    daemons = {site: start_site(site) for site in ("site-a", "site-b")}
    job = submit(house, keep=["batch_norm"], stop={"wall_time_s": 60})
    house.committed(3)
    kept = house.folder / "sites" / "site-a" / "kept" / f"{job}.safetensors"
    wait_until(kept.is_file, within=SOON, what="what site-a keeps")

    house.kill(daemons["site-a"])
    before = load_file(kept)["norm.num_batches_tracked"]
    start_site("site-a")
    wait_until(lambda: load_file(kept)["norm.num_batches_tracked"] > before, within=SOON, what="one more training")
    house.fedbus("abort", job)
    house.ended(job, state="aborted")

    other = load_file(house.folder / "sites" / "site-b" / "kept" / f"{job}.safetensors")
    assert set(other) == {*STATISTICS, "norm.num_batches_tracked", "norm.weight", "norm.bias"}
    assert not torch.equal(load_file(kept)["norm.running_var"], other["norm.running_var"])


def test_where_a_job_says_what_travels_all_else_stays_at_the_sites(house, start_site):
    house.start_aggregator()
    for site in ("site-a", "site-b"):
        start_site(site)
    job = submit(house, travel=["head.*"])
    house.ended(job)

    assert set(exported(house, job)) == {"head.weight", "head.bias", "weight.weight"}  # tied: one tensor
    kept = [load_file(house.folder / "sites" / site / "kept" / f"{job}.safetensors") for site in ("site-a", "site-b")]
    for own in kept:  # but for the layer that the task has frozen: it is made anew with the model
        assert set(own) == {*STATISTICS, "norm.num_batches_tracked", "norm.weight", "norm.bias", "weight.bias"}
    assert not torch.equal(kept[0]["norm.weight"], kept[1]["norm.weight"])
    assert house.refused_in_time(job) == []


def test_what_a_job_has_frozen_is_to_the_end_what_the_first_params_say(house, start_site):
    start = Network()
    torch.nn.init.normal_(start.norm.running_mean)
    write_start(house, start)
    house.start_aggregator(**KEEPING)
    for site in ("site-a", "site-b"):
        start_site(site)

    job = submit(house, initial_params="start.safetensors", frozen=["weight.weight", "batch_norm"])
    house.ended(job)

    found, first = exported(house, job), start.state_dict()
    frozen = {"weight.weight", "head.weight", "norm.weight", "norm.bias", *STATISTICS}
    assert [name for name in sorted(frozen) if not torch.equal(found[name], first[name])] == []
    assert not torch.equal(found["head.bias"], first["head.bias"])
    assert {fact.values_norm for fact in house.folded(job)} == {None}  # no value was sent
    assert house.refused_in_time(job) == []


def test_a_pattern_that_names_no_tensor_is_said_with_the_nearest_names(house, start_site):
    house.start_aggregator()
    start_site("site-a")
    submit(house, frozen=["haed.bias"], min_sites=1)

    said = house.aggregator.wait_for("trainer-trouble", fatal=True)["text"]

    assert "frozen: 'haed.bias' matches no tensor of the model" in said
    assert "nearest are head.bias" in said


def write_start(house, model: Network) -> None:
    """The params of a model, as the submitter's file `start.safetensors`."""
    params = house.folder / "aggregator" / "params"
    params.mkdir(parents=True)
    save_model(_without_extra_state(model), str(params / "start.safetensors"))


def test_a_file_as_safetensors_writes_tied_weights_is_a_start(house, start_site):
    torch.manual_seed(3)
    model = Network()
    write_start(house, model)
    house.start_aggregator()
    for site in ("site-a", "site-b"):
        start_site(site)

    job = submit(house, initial_params="start.safetensors", local=house.spec()["local"] | {"learning_rate": 1e-9})
    house.ended(job)

    assert torch.allclose(exported(house, job)["head.weight"], model.weight.weight, atol=1e-4)


def _without_extra_state(model: Network) -> Network:
    model.get_extra_state = lambda: torch.zeros(0)  # the format knows tensors only
    return model
