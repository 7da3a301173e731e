"""`fedbus get`: the params of a job through the broker, for somebody who cannot read the aggregator's disk."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import FedbusError
from fedbus.local.federation import wait_until
from tests.waits import SOON

NUMEL = 1_700_000  # 6.8 MB: more than the parts that are under way at once
BIG = {"task_config": {"numel": NUMEL}}


@pytest.fixture(scope="module")
def scored(manned_house):
    """A job with small models that is over and was scored."""
    for site in ("cleveland", "hungary"):
        manned_house.start_site(site)
    local = {"steps": 2, "batch_size": 32, "learning_rate": 0.05}
    job = manned_house.submit(task="heart_disease", task_config={}, local=local)
    manned_house.ended(job)
    return job


def export_of(house, job):
    return house.folder / "aggregator" / "jobs" / job / "final.safetensors"


def test_the_export_comes_whole_byte_for_byte(manned_house, scored, tmp_path):
    job = manned_house.submit(**BIG, stop={"versions": 1})
    manned_house.ended(job)
    said = manned_house.fedbus("get", job, "--to", str(tmp_path / "last.safetensors"))
    size = export_of(manned_house, job).stat().st_size
    assert size > 6 << 20
    assert said.out == f"version 1 of {job}: {size} bytes in {tmp_path / 'last.safetensors'}\n", said.err
    assert (tmp_path / "last.safetensors").read_bytes() == export_of(manned_house, job).read_bytes()
    assert os.listdir(tmp_path) == ["last.safetensors"]
    wait_until(lambda: not open_models(manned_house), within=SOON, what="the end of the fetch at the aggregator")


def open_models(house):
    """Files of params that the aggregator has open."""
    folder = f"/proc/{house.aggregator.pid}/fd"
    found = []
    for fd in os.listdir(folder):
        try:
            found.append(os.readlink(f"{folder}/{fd}"))
        except FileNotFoundError:
            continue
    return [path for path in found if path.endswith(".safetensors")]


def test_the_best_version_is_the_one_that_show_names(manned_house, scored, tmp_path):
    best = manned_house.job(scored)["result"]["best"]
    said = manned_house.fedbus("get", scored, "--to", str(tmp_path / "best"), "--version", "best")
    assert said.out.startswith(f"version {best['version']} of {scored}"), said.err
    with open(best["exported"], "rb") as file:
        assert (tmp_path / "best").read_bytes() == file.read()


def test_a_version_that_is_not_kept_is_an_error_that_names_those_that_are(manned_house, scored, tmp_path):
    there = tmp_path / "there"
    there.write_text("what was there before")
    said = manned_house.fedbus("get", scored, "--to", str(there), "--version", "77")
    assert said.code == 1
    assert f"version 77 of {scored} is not kept; kept are: " in said.err
    assert there.read_text() == "what was there before"


@pytest.mark.parametrize(
    ("to", "version", "says"),
    [
        ("file", "newest", "expected best, last or the number of a version, got newest"),
        ("", "last", "not a folder"),
        ("nowhere/file", "last", "a folder that exists"),
    ],
)
def test_what_cannot_be_written_or_asked_is_wrong_usage(manned_house, tmp_path, to, version, says):
    said = manned_house.fedbus("get", "heart-1", "--to", str(tmp_path / to), "--version", version)
    assert (said.code, os.listdir(tmp_path)) == (2, [])
    assert says in said.err


def test_a_job_without_params_says_so(manned_house, tmp_path):
    job = manned_house.submit(min_sites=9)
    said = manned_house.fedbus("get", job, "--to", str(tmp_path / "file"))
    assert said.code == 1
    assert f"job {job} has no params yet, it is " in said.err
    assert "no job 'nothing'" in manned_house.fedbus("get", "nothing", "--to", str(tmp_path / "file")).err


def test_the_newest_checkpoint_of_a_running_job_is_fetched_while_new_ones_take_its_place(house, tmp_path):
    # given a job that goes on, whose aggregator writes a checkpoint of each version
    house.start_aggregator(checkpoint_interval_s=0)
    house.start_site("cleveland")
    local = house.spec()["local"]
    job = house.submit(**BIG, local=local, codec={"up": "fp32", "down": "int8"}, stop={"versions": 100_000})
    house.committed(1)
    checkpoints = house.folder / "aggregator" / "jobs" / job / "checkpoints"
    before = {path.name for path in checkpoints.iterdir()}
    # when its last version is fetched while the checkpoint is replaced after the first part
    parts = []

    def progress(have, size):
        parts.append(have)
        if len(parts) == 1:
            house.committed(int(max(before)[1:9]) + 5)

    got = house.ask(lambda client: client.get(job, "last", tmp_path / "last", progress=progress))
    # then it is whole, by name, and what the export of that version would be
    tensors = load_file(tmp_path / "last")
    assert len(parts) > 6
    assert f"v{got.version:08d}.safetensors" not in {path.name for path in checkpoints.iterdir()}
    assert sum(tensor.numel() for tensor in tensors.values()) == NUMEL
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_who_goes_away_in_the_middle_leaves_nothing_and_others_are_served(house, tmp_path):
    house.start_aggregator()
    house.start_site("cleveland")
    spec = TrainingSpec.parse(house.spec(**BIG, stop={"versions": 1}))
    job = house.ask(lambda client: client.submit(spec))
    house.ended(job)

    def gone(have, size):
        raise FedbusError("gone")

    for _ in range(3):
        with pytest.raises(FedbusError, match="gone"):
            house.ask(lambda client: client.get(job, "last", tmp_path / "file", progress=gone))
    assert os.listdir(tmp_path) == ["fed"]
    assert house.fedbus("get", job, "--to", str(tmp_path / "file")).code == 0
