"""What a job waits for and may never get, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.job.prospects import nearest, nobody_left, unknown_site
from fedbus.core.job.training import TrainingJob
from fedbus.core.spec.training import TrainingSpec

TARGET = {"target": {"metric": "AUC", "at_least": 0.9}}
METRICS = {"accuracy": 0.5, "auc": 0.95, "loss": 0.7}


def spec(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "job", "task": "digits", "local": local, "stop": {"versions": 9}} | keys)


def running(stop: dict[str, Any], *sites: str) -> TrainingJob:
    made = TrainingJob(spec(stop=stop))
    made.offered(now=0.0)
    for site in sites:
        made.accepted(site)
    made.set_active(sites)
    made.started(now=1.0)
    return made


def scored(made: TrainingJob, versions: range, *sites: str, **metrics: float) -> None:
    for version in versions:
        for site in sites:
            made.scored(version=version, site=site, metrics=metrics or METRICS, num_examples=9)


@pytest.mark.parametrize(
    ("name", "found"), [("AUC", "auc"), ("acuracy", "accuracy"), ("mercyy", "mercy"), ("dice", ""), ("", "")]
)
def test_the_nearest_name_is_found_however_it_is_capitalised(name: str, found: str) -> None:
    assert nearest(name, ["auc", "accuracy", "loss", "mercy"]) == found


def test_a_metric_that_no_site_reports_is_named_with_the_nearest_one() -> None:
    made = running(TARGET, "a", "b")
    assert made.waits_for_metrics == ""
    scored(made, range(1), "a")
    assert made.waits_for_metrics == (
        "the stop rule target waits for metric 'AUC', sites report accuracy, auc, loss: nearest 'auc'"
    )


def test_a_rule_whose_metric_comes_out_as_nan_waits_for_no_other_name() -> None:
    made = running({"target": {"metric": "auc", "at_least": 0.9}}, "a")
    made.scored(version=0, site="a", metrics={"loss": 0.5}, num_examples=9, not_finite=["auc"])
    scored(made, range(1, 9), "a", loss=0.5)
    assert "sites report" not in made.waits_for_metrics
    assert made.cannot_end() is None


def test_a_metric_that_too_few_sites_report_for_a_mean_is_named() -> None:
    made = running({"target": {"metric": "auc", "at_least": 0.9}, "versions": 99}, "a", "b", "c")
    scored(made, range(1), "a")
    scored(made, range(1), "b", loss=0.5)
    assert made.waits_for_metrics == "the stop rule target waits for metric 'auc' of at least 2 sites"
    scored(made, range(1), "c")
    assert made.waits_for_metrics == ""


def test_a_job_cannot_end_once_every_site_has_scored_three_versions_without_the_metric() -> None:
    made = running(TARGET, "a", "b")
    scored(made, range(9), "a")
    scored(made, range(2), "b")
    assert made.cannot_end() is None
    scored(made, range(2, 3), "b")
    assert made.cannot_end() == f"{made.waits_for_metrics}; nothing else ends the job"


@pytest.mark.parametrize(
    "stop",
    [
        TARGET | {"versions": 99},
        TARGET | {"updates": 99},
        TARGET | {"wall_time_s": 99},
        TARGET | {"patience": {"versions": 9, "metric": "loss"}},
        {"target": {"metric": "auc", "at_least": 0.99}},
    ],
    ids=["versions", "updates", "wall time", "patience", "the metric is there"],
)
def test_a_job_that_something_can_end_goes_on(stop: dict[str, Any]) -> None:
    made = running(stop, "a")
    scored(made, range(9), "a")
    assert made.cannot_end() is None


def test_target_and_patience_on_one_unknown_metric_are_said_once() -> None:
    made = running(TARGET | {"patience": 5}, "a")
    scored(made, range(3), "a")
    assert str(made.cannot_end()).startswith("the stop rules target and patience wait for metric 'AUC', sites report ")


def test_a_site_that_is_not_enrolled_is_named_with_the_nearest_one() -> None:
    assert unknown_site("alhpa", ["alpha", "beta"]) == "site alhpa is not enrolled at the broker: nearest 'alpha'"
    assert unknown_site("zeta9", ["mercy"]) == "site zeta9 is not enrolled at the broker"


@pytest.mark.parametrize(
    ("keys", "known", "declined", "says"),
    [
        ({}, "a b", "", ""),
        ({}, "a b", "a", ""),
        ({}, "a b", "a b", "no site is left to take part: a: a's reason; b: b's reason"),
        ({"sites": ["a", "b"]}, "a c", "a", ""),
        ({"sites": ["a"]}, "a c", "a", "no site is left to take part: a: a's reason"),
        ({"min_sites": 2}, "", "", ""),
        ({"min_sites": 2}, "a b", "a", "only b of the 2 sites it needs is left to take part: a: a's reason"),
        ({"min_sites": 3}, "a b", "a", ""),
        ({"min_sites": 2, "sites": ["a", "b"]}, "a", "a", "only b of the 2 sites it needs is left to take part: a"),
    ],
)
def test_too_few_are_left_only_when_those_who_declined_are_lacking(
    keys: dict[str, Any], known: str, declined: str, says: str
) -> None:
    reasons = {site: f"{site}'s reason" for site in declined.split()}
    found = nobody_left(spec(**keys), known=set(known.split()), declined=reasons)
    assert found.startswith(says)
    assert bool(found) == bool(says)


def test_a_thousand_reasons_make_no_endless_sentence() -> None:
    declined = {f"site-{i}": "no" for i in range(1000)}
    assert nobody_left(spec(), known=declined, declined=declined).endswith("; site-104: no and 992 more")
