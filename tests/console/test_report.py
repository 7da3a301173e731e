"""The report of a job says what the aggregator has answered, whatever the kind and however little is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.console.report.job import job_page
from fedbus.core.protocol import answers as a
from fedbus.report.page import as_html, as_json

TRAINED: dict[str, Any] = {
    "reason": "12 versions",
    "exported": "/srv/fedbus/last.safetensors",
    "best": {
        "version": 9,
        "metric": "dice",
        "value": 0.83,
        "exported": "x",
        "scores": {"mercy": {"metrics": {"dice": 0.81}, "num_examples": 20}},
    },
    "scores": {
        "mercy": {"metrics": {"dice": 0.79}, "num_examples": 20},
        "va": {"metrics": {}, "num_examples": 0, "failed": "DataError in score"},
        "ucsf": {"metrics": {"loss": 1.0}, "num_examples": 5, "not_finite": ["dice"]},
    },
}


def a_job(**given: Any) -> a.JobDetail:
    facts: dict[str, Any] = {"job": "hip-1", "name": "hip", "state": "finished", "version": 12, "updates": 30}
    facts |= {"submitted_at": 10.0, "started_at": 20.0, "ended_at": 320.0}
    return a.JobDetail(**(facts | given))


def test_a_training_shows_last_and_best_scores_sites_and_what_went_wrong() -> None:
    detail = a_job(
        result=TRAINED,
        sites={"mercy": a.SiteInJob(updates=30, refused=1, mean_staleness=0.5), "va": a.SiteInJob()},
        refusals=(a.Refusals(reason="its base version is too old", updates=1),),
        incidents=(a.Incident(at=100.0, kind="trouble", text="the broker was away"),),
    )
    lines = [a.VersionLine(version=n, means={"dice": 0.5 + n / 100}) for n in range(13)]
    html = as_html(job_page(detail, lines, now=400.0))
    for text in (
        "finished after 5 min, 2 sites, 30 updates, 12 versions.",
        "The best version is 9, dice 0.83",
        "0.790 last (12), n = 20",
        "0.810 best, n = 20",
        "va could not score the last version",
        "at ucsf dice of the last version came out as NaN or infinity",
        "no update of va is in the model",
        "its base version is too old",
        "the broker was away",
        "dice over 13 versions, from 0.500 to 0.620",
    ):
        assert text in html, text


@pytest.mark.parametrize("state", ["finished", "waiting for sites"])
def test_a_training_shows_what_followed_it_or_where_that_will_stand(state: str) -> None:
    own = a.ScoredModel(
        model="hip-1, local model of va",
        means={"dice": 0.5},
        scores={"mercy": a.SiteScore(metrics={"dice": 0.437}, num_examples=31)},
    )
    models = (own,) if state == "finished" else None
    follow_up = a.JobDetail(job="cross-site-0", state=state, says="waiting for va", models=models)
    page = job_page(a_job(result=TRAINED | {"follow_up": "cross-site-0"}), [], now=400.0, follow_up=follow_up)
    html = as_html(page)
    assert "scored by every site in job cross-site-0" in html
    assert ("That job is waiting for sites: waiting for va" in html) == (state != "finished")
    assert ("hip-1, local model of va" in html and "0.437" in html) == (state == "finished")
    assert json.loads(as_json(page))["follow_up"]["job"] == "cross-site-0"


def test_an_evaluation_is_a_matrix_of_sites_and_models() -> None:
    models = (
        a.ScoredModel(
            model="before.safetensors",
            means={"auc": 0.7},
            scores={"va": a.SiteScore(metrics={"auc": 0.65}, num_examples=31)},
        ),
        a.ScoredModel(model="hip-1, version best", failed={"va": "another layout"}),
    )
    html = as_html(job_page(a_job(spec={"kind": "evaluate"}, models=models), [], now=400.0))
    for text in ("before.safetensors", "0.650", "n = 31", "va could not score model 1", "another layout"):
        assert text in html, text


@pytest.mark.parametrize("kind", ["training", "evaluate", "of-a-later-release"])
def test_a_job_of_which_little_is_known_has_a_report_too(kind: str) -> None:
    empty = a.JobDetail(job="j", spec={"kind": kind})
    page = job_page(empty, [], now=1.0)
    assert "What needs attention" in as_html(page)
    assert json.loads(as_json(page))["kind"] == kind


def test_a_clean_job_says_so() -> None:
    result = {"scores": {"mercy": {"metrics": {"dice": 0.8}, "num_examples": 2}}}
    html = as_html(job_page(a_job(result=result, sites={"mercy": a.SiteInJob(updates=3)}), [], now=1.0))
    assert "nothing that the aggregator knows of" in html


def test_json_holds_what_show_prints() -> None:
    detail = a_job(result=TRAINED)
    assert json.loads(as_json(job_page(detail, [], now=1.0)))["job"] == json.loads(json.dumps(a.as_json(detail)))
