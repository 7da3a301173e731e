"""`fedbus history`: the curve of a job, after it has ended and after the aggregator was started anew."""

from __future__ import annotations

import csv
import io

import pytest

VERSIONS = 6


@pytest.fixture(scope="module")
def scored(manned_house):
    """A job that has ended, whose sites scored versions; the aggregator was killed after it."""
    for site in ("cleveland", "hungary"):
        manned_house.start_site(site)
    local = {"steps": 2, "batch_size": 32, "learning_rate": 0.05}
    keys = {"task": "heart_disease", "task_config": {}, "local": local, "min_sites": 2}
    job = manned_house.submit(stop={"versions": VERSIONS}, **keys)
    manned_house.ended(job)
    manned_house.kill(manned_house.aggregator)
    manned_house.start_aggregator()
    return job


def test_each_version_has_its_time_contributors_and_scores(manned_house, scored):
    lines = manned_house.fedbus("history", scored, "-o", "json").json
    result = manned_house.job(scored)["result"]
    assert [line["version"] for line in lines] == list(range(VERSIONS + 1))
    committed = {fact.version: fact for fact in manned_house.versions(scored)}
    for line in lines[1:]:
        assert line["contributors"] == sorted({u.site for u in committed[line["version"]].update_ids})
        assert line["updates"] == len(committed[line["version"]].update_ids)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    # the last version was scored by both, and that is what the job's result says
    assert lines[-1]["scores"] == {site: score["metrics"] for site, score in result["scores"].items()}
    assert set(lines[-1]["scores"]) == {"cleveland", "hungary"}
    best = result["best"]
    scores_of_both = [score[best["metric"]] for score in lines[-1]["scores"].values()]
    assert min(scores_of_both) <= lines[-1]["means"][best["metric"]] <= max(scores_of_both)


def test_csv_is_the_same_in_plain_numbers_under_a_header(manned_house, scored):
    lines = manned_house.fedbus("history", scored, "-o", "json").json
    rows = list(csv.DictReader(io.StringIO(manned_house.fedbus("history", scored, "-o", "csv").out)))
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        assert (int(row["version"]), float(row["at"])) == (line["version"], line["at"])
        assert row["contributors"].split() == line["contributors"]
        for name, value in line["means"].items():
            assert float(row[name]) == value
        for site, scores in line["scores"].items():
            assert all(float(row[f"{name}:{site}"]) == value for name, value in scores.items())


def test_people_get_a_table(manned_house, scored):
    said = manned_house.fedbus("history", scored, COLUMNS="120")
    assert said.out.split("\n")[0].split()[:3] == ["version", "after", "contributors"]
    assert "cleveland" in said.out
    job = manned_house.submit(min_sites=9)
    assert "no version yet" in manned_house.fedbus("history", job).out
