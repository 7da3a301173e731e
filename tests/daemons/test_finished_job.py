"""A job from its submission to its result, and what the commands say about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def finished(manned_house):
    """A job that two hospitals trained to the end."""
    house = manned_house
    house.start_site("cleveland", step_delay_s=0.02)
    house.start_site("hungary", step_delay_s=0.02)
    local = house.spec()["local"] | {"evaluate": True}
    job = house.submit(task="heart_disease", task_config={}, min_sites=2, local=local)
    house.ended(job)
    return job


def test_result_is_a_file_with_the_params_and_the_scores_of_every_site(manned_house, finished):
    result = manned_house.job(finished)["result"]
    params = load_file(result["exported"])
    assert {name: tuple(tensor.shape) for name, tensor in params.items()} == {"weight": (1, 15), "bias": (1,)}
    assert result["version"] == 3
    assert {site: set(score["metrics"]) for site, score in result["scores"].items()} == {
        "cleveland": {"loss", "accuracy", "auc"},
        "hungary": {"loss", "accuracy", "auc"},
    }


def test_commands_agree_on_the_job(manned_house, finished):
    # when the list of jobs and the job itself are asked for
    (line,) = [row for row in manned_house.fedbus("jobs", "-o", "json").json if row["job"] == finished]
    detail = manned_house.fedbus("show", finished, "-o", "json").json
    # then they tell the same story
    assert line.items() <= detail.items()
    assert line["state"] == "finished"
    assert line["updates"] == sum(site["updates"] for site in detail["sites"].values())


def test_tables_for_people_show_what_the_json_says(manned_house, finished):
    shown = "".join(manned_house.fedbus(*words).out for words in (["jobs"], ["show", finished], ["sites"]))
    assert all(word in shown for word in (finished, "finished", "cleveland", "hungary", "auc", "online"))


def test_list_of_sites_says_who_is_there_and_what_they_may_run(manned_house, finished):
    rows = {row["site"]: row for row in manned_house.fedbus("sites", "-o", "json").json}
    assert {name: row["state"] for name, row in rows.items()} == {"cleveland": "online", "hungary": "online"}
    assert "heart_disease" in rows["cleveland"]["tasks"]


def test_site_daemon_never_loads_torch(manned_house, finished):
    # given a site that has trained a job, in its trainer
    (site,) = [daemon for daemon in manned_house.running.daemons if daemon.name == "cleveland"]
    assert "libtorch" not in Path(f"/proc/{site.pid}/maps").read_text()


def test_watch_tells_a_finished_job_again_and_succeeds(manned_house, finished):
    said = manned_house.fedbus("watch", finished)
    assert said.code == 0
    lines = said.out.splitlines()
    assert "job-submitted" in lines[0]
    assert "version 3 of 3 is there" in lines[-1]


def test_job_that_is_not_there_is_named_with_those_that_are(manned_house, finished):
    said = manned_house.fedbus("show", "nothing")
    assert said.code == 1
    assert f"no job 'nothing'; newest jobs: {finished}" in said.err


def test_module_of_the_submitter_submits_a_file(manned_house, tmp_path):
    # given a job file
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(manned_house.spec(name="by-module", sites=["va-long-beach"])))
    # when the module is run on it
    env = {**os.environ, "FEDBUS_BROKER_URL": manned_house.running.url("submitter")}
    command = [sys.executable, "-m", "services.publisher", str(path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    # then it prints the id of a job that is there
    assert done.stdout.strip() in {row.job for row in manned_house.ask(lambda client: client.jobs())}
