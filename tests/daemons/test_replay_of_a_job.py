"""`fedbus replay` on the state folder of a real aggregator: killed in the middle, running, and stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedbus.local.federation import wait_until
from tests.waits import SOON

KEEPING = {"keep_updates": 1, "checkpoint_interval_s": 0.3}
VERSIONS = 12


@pytest.fixture(scope="module")
def kept(manned_house):
    """A job that is over; its aggregator keeps updates, was killed in the middle, and still runs."""
    house = manned_house
    house.kill(house.aggregator)
    house.start_aggregator(**KEEPING)
    for site in ("cleveland", "hungary"):
        house.start_site(site, step_delay_s=0.05)
    local = house.spec()["local"] | {"evaluate": False}
    codec = {"up": "fp16", "down": "int8"}
    optimizer = {"kind": "adam", "lr": 0.1}
    keys = {"task": "heart_disease", "task_config": {}, "local": local, "codec": codec, "server_optimizer": optimizer}
    job = house.submit(min_sites=2, stop={"versions": VERSIONS}, **keys)
    house.committed(5)
    house.kill(house.aggregator)
    house.start_aggregator(**KEEPING)
    house.ended(job)
    spool = state_of(house) / "spool" / job
    wait_until(lambda: not spool.exists(), within=SOON, what="the end of the job's spool")
    return job


def state_of(house) -> Path:
    return house.folder / "aggregator"


def test_a_job_whose_aggregator_was_killed_is_replayed_from_version_0_to_the_bit(manned_house, kept):
    said = manned_house.fedbus("replay", str(state_of(manned_house)), "--job", kept, "--verify")
    assert said.code == 0, said.err
    lines = dict(line.split(maxsplit=1) for line in said.out.replace(" version", "_version", 2).splitlines())
    assert lines["from_version"].strip() == "0"
    assert lines["to_version"].strip() == str(VERSIONS)
    assert lines["says"].startswith("bit-identical to the checkpoints of versions ")
    assert lines["says"].strip().endswith(f"and {VERSIONS}")


def test_every_update_is_replayed_and_all_jobs_are_listed_and_the_params_are_the_export(manned_house, kept, tmp_path):
    out = tmp_path / "replayed.safetensors"
    (row,) = manned_house.fedbus("replay", str(state_of(manned_house)), "--out", str(out), "-o", "json").json
    assert (row["job"], row["identical"], row["gone"]) == (kept, True, 0)
    assert row["updates"] == len(manned_house.folded(kept))
    exported = load_file(state_of(manned_house) / "jobs" / kept / "final.safetensors")
    replayed = load_file(out)
    assert replayed.keys() == exported.keys()
    assert all(torch.equal(replayed[name], tensor) for name, tensor in exported.items())


def test_without_a_site_the_params_are_others(manned_house, kept, tmp_path):
    out = tmp_path / "without.safetensors"
    arguments = ["replay", str(state_of(manned_house)), "--without", "hungary", "--out", str(out)]
    said = manned_house.fedbus(*arguments, "-o", "json").json
    of_hungary = sum(fold.update_id.site == "hungary" for fold in manned_house.folded(kept))
    assert (said["without"], said["left_out"], said["from_version"]) == (["hungary"], of_hungary, 0)
    whole = said["groups"][0]
    assert whole["group"] == "all"
    assert whole["difference"] > 0
    exported = load_file(state_of(manned_house) / "jobs" / kept / "final.safetensors")
    changed = load_file(out)
    assert any(not torch.equal(changed[name], tensor) for name, tensor in exported.items())
    # and people are told the same
    shown = manned_house.fedbus(*arguments[:-2], COLUMNS="80").out
    assert all(word in shown for word in ("cleveland", "hungary", "left out", "cosine", "First order"))
    assert max(map(len, shown.splitlines())) <= 80


def test_a_damaged_body_is_named(manned_house, kept):
    body = sorted((state_of(manned_house) / "archive" / kept).glob("*.frames"))[3]
    content = body.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    try:
        body.write_bytes(flipped)
        said = manned_house.fedbus("replay", str(state_of(manned_house)), "--job", kept, "--verify")
    finally:
        body.write_bytes(content)
    assert said.code == 1
    assert f"({body}) is damaged: frame at element" in said.err


def test_beside_a_running_aggregator_that_keeps_nothing_and_after_its_kill(house):
    # given: a job that goes on, and an aggregator that deletes bodies
    house.start_aggregator(checkpoint_interval_s=0.5)
    house.start_site("cleveland", step_delay_s=0.05)
    job = house.submit(stop={"versions": 10_000})
    checkpoints = state_of(house) / "jobs" / job / "checkpoints"
    first = checkpoints / "v00000000.safetensors"
    house.committed(1)
    wait_until(lambda: not first.exists(), within=SOON, what="a second checkpoint after that of version 0")
    # when: it is replayed meanwhile
    said = house.fedbus("replay", str(state_of(house)), "--job", job, "--verify", "-o", "json")
    # then: from the older checkpoint on, and the job has not noticed
    assert said.code == 0, said.err
    assert 0 < said.json["from_version"] < said.json["compared"][0]
    assert "before version" in said.json["says"]
    house.committed(said.json["to_version"] + 3)
    # and the same after a kill
    house.kill(house.aggregator)
    before = {path: path.read_bytes() for path in state_of(house).rglob("*") if path.is_file()}
    again = house.fedbus("replay", str(state_of(house)), "--job", job, "--verify", "-o", "json")
    said = house.fedbus("report", job, "--to", "-", "-o", "json", "--state-dir", str(state_of(house)))
    del before[state_of(house) / "ledger.sqlite3-shm"]
    assert [path for path, content in before.items() if path.read_bytes() != content] == []
    assert again.json["identical"] is True
    assert again.json["to_version"] == house.versions(job)[-1].version
    of_job = said.json["job"]
    assert (of_job["state"], of_job["version"]) == ("running", house.versions(job)[-1].version)
    assert of_job["sites"]["cleveland"]["updates"] == of_job["updates"] == len(house.folded(job))
    assert "nobody was asked" in of_job["says"]
    assert len(said.json["history"]) == of_job["version"] + 1


def test_a_rule_that_remembers_is_replayed_to_the_bit_after_a_kill(house):
    # given: a slow and a fast site, and an aggregator that is killed in the middle
    house.start_aggregator(**KEEPING)
    house.start_site("cleveland", step_delay_s=0.05)  # a tenth of a second, much longer than what a busy machine adds
    house.start_site("hungary", step_delay_s=0.5)
    job = house.submit(min_sites=2, strategy="auto", codec={"up": "int8", "down": "int8"}, stop={"versions": 24})
    house.committed(12)
    house.kill(house.aggregator)
    stopped = house.fedbus("replay", str(state_of(house)), "--job", job, "--verify", "-o", "json")
    house.start_aggregator(**KEEPING)
    house.ended(job)
    # then: what sites sent last was remembered, also over the restart
    ended = house.fedbus("replay", str(state_of(house)), "--job", job, "--verify", "-o", "json")
    assert stopped.json["identical"] is ended.json["identical"] is True, stopped.err + ended.err
    assert (ended.json["from_version"], ended.json["to_version"]) == (0, 24)
    assert any(fact.also for fact in house.folded(job))
    assert house.refused_in_time(job) == []
    # and people see which rule weighs
    assert house.job(job)["rule"].startswith("calibrated: the slowest site, hungary, takes")


def test_the_report_from_a_copy_of_the_state_folder_is_that_of_the_aggregator(manned_house, kept, tmp_path):
    """Of a copy on a machine where nothing runs: the same facts, and the card of the same params."""
    asked, read = tmp_path / "asked", tmp_path / "read"
    said = manned_house.fedbus("report", kept, "--to", str(asked))
    assert said.code == 0, said.err
    moved = tmp_path / "elsewhere" / "state"
    shutil.copytree(state_of(manned_house), moved)
    nowhere = "amqp://submitter:x@127.0.0.1:9/none"
    said = manned_house.fedbus("report", kept, "--to", str(read), "--state-dir", str(moved), url=nowhere)
    assert said.code == 0, said.err

    assert sorted(path.name for path in read.iterdir()) == ["MODEL_CARD.md", "card.json", "report.html", "report.json"]
    ours, theirs = (json.loads((folder / "report.json").read_text()) for folder in (read, asked))
    assert ours | {"made_at": 0} == theirs | {"made_at": 0}
    cards = [json.loads((folder / "card.json").read_text()) for folder in (read, asked)]
    assert cards[0] == cards[1]
    html = (read / "report.html").read_text()
    assert "<svg" in html
    assert 'src="http' not in html

    again = manned_house.fedbus("report", kept, "--to", str(read), "--state-dir", str(moved))
    assert (again.code, "give --force" in again.err) == (2, True)
    none = manned_house.fedbus("report", "nothing", "--to", "-", "--state-dir", str(moved))
    assert (none.code, none.err) == (1, f"fedbus: no job 'nothing' in this ledger; newest jobs: {kept}\n")
    empty = manned_house.fedbus("report", kept, "--to", "-", "--state-dir", str(tmp_path))
    assert (empty.code, "expected the state folder of an aggregator" in empty.err) == (1, True)
