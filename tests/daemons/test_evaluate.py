"""A job that only scores: every site measures given models, and `fedbus show` has the matrix."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

TASK = {"task": "heart_disease", "task_config": {}}
SITES = ("cleveland", "hungary")


@pytest.fixture
def trained(house: Any) -> str:
    """A job that has ended, of two sites that are there."""
    house.start_aggregator()
    for site in SITES:
        house.start_site(site)
    local = {"steps": 4, "batch_size": 32, "learning_rate": 0.05}
    job = str(house.submit(**TASK, local=local, min_sites=2, stop={"versions": 4}))
    house.ended(job)
    return job


def evaluates(house: Any, *models: dict[str, Any], **keys: Any) -> str:
    """The id of a job that scores these models."""
    spec = {"kind": "evaluate", "name": "which-is-better", "min_sites": 2, **TASK, "models": list(models)} | keys
    path = house.folder / "evaluate.yaml"
    path.write_text(json.dumps(spec))
    return str(house.fedbus("submit", str(path)).out.strip())


def test_every_site_scores_every_model_and_the_last_version_scores_as_it_did(house: Any, trained: str) -> None:
    # given two models: what a job has left, and a file that somebody put into the params folder
    result = house.job(trained)["result"]
    params = house.folder / "aggregator" / "params"
    params.mkdir(exist_ok=True)
    shutil.copy(result["exported"], params / "mine.safetensors")
    # when they are evaluated
    job = evaluates(house, {"job": trained}, {"file": "mine.safetensors"})
    ended = house.ended(job)
    # then both sites have scored both, and as at the end of the training
    models = ended["result"]["models"]
    assert [model["model"] for model in models] == [f"{trained}, version 4 (last)", "mine.safetensors"]
    for model in models:
        assert {site: score["metrics"] for site, score in model["scores"].items()} == {
            site: score["metrics"] for site, score in result["scores"].items()
        }
        assert model["failed"] == {}
    # and people see it, with the mean over the sites
    shown = house.fedbus("show", job, COLUMNS="120").out
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith(("model", "cleveland"))][:2] == [
        ["model", "0"],
        ["model", "1"],
    ]
    of_all = models[0]["intervals"]["auc"]
    cell = f"{models[0]['means']['auc']:.3f} [{of_all['low']:.3f}, {of_all['high']:.3f}]"
    assert f"all, by examples            {cell}" in shown
    # each site and all together say how sure that is, and nothing else of the test cases
    site = models[0]["scores"]["cleveland"]["intervals"]["auc"]
    assert site["low"] < site["value"] < site["high"]
    assert set(site) == {"value", "low", "high", "cases", "sites"}
    # and nothing was trained, and nothing is left of the copies
    assert house.job(job)["updates"] is None
    assert not list((house.folder / "aggregator" / "jobs" / job).rglob("*.safetensors"))


def test_a_model_that_is_not_there_fails_the_job_before_a_site_is_asked(house: Any, trained: str) -> None:
    job = evaluates(house, {"job": trained, "version": 99})
    ended = house.ended(job, state="failed")
    assert ended["text"].startswith(f"failed: models.0: version 99 of {trained} is not kept; kept are: ")


def test_an_aggregator_that_is_killed_asks_only_for_what_was_not_answered(house: Any, trained: str) -> None:
    # given a job of which one site has scored the first of two models, and the other site scores nothing
    sites = {daemon.name: daemon for daemon in house.running.daemons}
    job = evaluates(house, {"job": trained}, {"job": trained, "version": 4}, min_sites=1)
    house.aggregator.wait_for("version-scored", job=job, site="cleveland")
    sites["hungary"].freeze()
    # when the aggregator is killed and another one goes on
    house.kill(house.aggregator)
    house.start_aggregator()
    sites["hungary"].thaw()
    ended = house.ended(job)
    # then the job ends with everything in its matrix
    assert [sorted(model["scores"]) for model in ended["result"]["models"]] == [list(SITES)] * 2
    asked_again = [e for e in house.aggregator.events() if e["event"] == "version-scored" and e["job"] == job]
    assert ("cleveland", 0) not in [(e["site"], e["version"]) for e in asked_again]
