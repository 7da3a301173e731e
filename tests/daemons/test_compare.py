"""Two trainings compared by real sites: per site, over all, in words, and the same again without asking a site."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.store.ledger import Ledger

TASK = {"task": "heart_disease", "task_config": {}}
SITES = ("cleveland", "hungary")


@pytest.fixture
def jobs(house: Any) -> tuple[str, str]:
    """Two jobs of two sites that have ended: one of a single step, one of many."""
    house.start_aggregator()
    for site in SITES:
        house.start_site(site)
    little = {"steps": 1, "batch_size": 4, "learning_rate": 0.001}
    much = {"steps": 60, "batch_size": 32, "learning_rate": 0.1}
    found = [
        str(house.submit(**TASK, name=name, local=local, min_sites=2, stop={"versions": versions}))
        for name, local, versions in (("little", little, 1), ("much", much, 6))
    ]
    for job in found:
        house.ended(job)
    return found[0], found[1]


def test_every_site_says_how_two_models_differ_on_its_own_cases(house: Any, jobs: tuple[str, str]) -> None:
    # when the two are compared
    page = house.folder / "compare.html"
    said = house.fedbus("compare", *jobs, "--metric", "loss", "--to", str(page), "-o", "json")
    assert said.code == 0, said.err
    (found,) = said.json["comparisons"]
    # then the one that has learnt is better, at each site and over both
    question = found["differences"][0]
    assert (question["metric"], question["question"]) == ("loss", True)
    assert sorted(question["sites"]) == list(SITES)
    for one in (question["overall"], *question["sites"].values()):
        assert one["low"] < one["value"] < one["high"] < 0
        assert one["says"] == "better"
    assert question["overall"]["cases"] == sum(one["cases"] for one in question["sites"].values())
    assert found["sentences"][0].startswith("B is better than A by ")
    # and paired on the same cases it is surer than the two intervals are
    models = house.job(said.json["job"])["result"]["models"]
    alone = [model["scores"]["hungary"]["intervals"]["loss"] for model in models]
    both = question["sites"]["hungary"]
    assert both["high"] - both["low"] < sum(one["high"] - one["low"] for one in alone)
    # and it can be seen again, as a table and as a page
    again = house.fedbus("compare", "--job", said.json["job"], COLUMNS="80").out
    assert found["sentences"][0].split(" (")[0] in again.replace("\n", " ")
    assert "Is B better than A?" in page.read_text()
    # and the ledger holds quantiles, never a value per case
    with Ledger(house.folder / "aggregator" / "ledger.sqlite3") as ledger:
        rows = ledger.findings.scores(said.json["job"], after=-1, until=2)
    assert {len(spread.quantiles) for row in rows for spread in row.score.differences.values()} == {21}
    # and a model that is compared to itself shows no difference
    best = house.job(jobs[1])["result"]["best"]["version"]
    same = house.fedbus("compare", jobs[1], "--version", "best", "--version", str(best), "-o", "json")
    assert same.code == 0, same.err
    assert {one["says"] for d in same.json["comparisons"][0]["differences"] for one in d["sites"].values()} == {
        "no difference can be shown"
    }
    # and what cannot be compared is said at once
    twice = house.fedbus("compare", jobs[0], "--version", "1", "--version", "1")
    assert (twice.code, "there is nothing to compare" in twice.err) == (2, True)
    assert "compares nothing" in house.fedbus("compare", "--job", jobs[0]).err


def test_local_models_of_sites_that_share_them_are_scored_by_every_site(house: Any) -> None:
    # given a training at two sites, of which one shares what it has trained
    house.start_aggregator()
    house.start_site("cleveland", share_local_model=True)
    house.start_site("hungary")
    local = {"steps": 10, "batch_size": 32, "learning_rate": 0.1}
    both = {"min_sites": 2, "min_contributors": 2}  # so that each has trained
    job = str(house.submit(**TASK, **both, local=local, evaluate_local=True, stop={"versions": 4}))
    house.ended(job)
    result = house.job(job)["result"]
    assert result["local_models"] == ["cleveland"]
    # when the sites have scored each other's models, which follows by itself
    house.ended(result["follow_up"])
    said = house.fedbus("cross-site", job, "-o", "json")
    assert said.code == 0, said.err
    assert said.json["job"] == result["follow_up"]
    assert [row.name for row in house.ask(lambda client: client.jobs())] == ["test", "cross-site"]
    # then the training says where that stands, and its report has it
    assert f"{result['follow_up']}: every site scores" in house.fedbus("show", job).out
    assert "local model of cleveland" in house.fedbus("report", job, "--to", "-").out
    # and the one local model has a row of its own, which is no version of the job
    models = {model["model"]: model for model in said.json["result"]["models"]}
    own = models[f"{job}, local model of cleveland"]
    assert sorted(own["scores"]) == list(SITES)
    assert own["scores"]["hungary"]["intervals"]["accuracy"]["cases"] > 0
    others = [model["scores"]["cleveland"]["metrics"]["loss"] for name, model in models.items() if "local" not in name]
    assert own["scores"]["cleveland"]["metrics"]["loss"] not in others
    # and that of the other site is asked for in vain
    wanted = {"kind": "evaluate", "name": "mine", **TASK, "models": [{"job": job, "site": "hungary"}]}
    path = house.folder / "mine.json"
    path.write_text(json.dumps(wanted))
    ended = house.ended(house.fedbus("submit", str(path)).out.strip(), state="failed")
    assert "hungary has left no local model" in ended["text"]
    assert "there are those of: cleveland" in ended["text"]
