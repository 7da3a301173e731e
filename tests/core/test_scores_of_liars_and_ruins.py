"""Scores that are not finite, that cannot be had, and that one site makes up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedbus.core.job.scores import MOST_METRICS, Score, mean_of, means_of
from fedbus.core.job.training import TrainingJob
from fedbus.core.spec.training import TrainingSpec

LOCAL = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}


def running(*sites: str, **stop: Any) -> TrainingJob:
    job = TrainingJob(
        TrainingSpec.parse({"name": "job", "task": "t", "local": LOCAL, "stop": stop or {"versions": 99}})
    )
    job.offered(now=0.0)
    for site in sites:
        job.accepted(site)
    job.set_active(sites)
    job.started(now=0.0)
    return job


def scores(
    job: TrainingJob, site: str, version: int, *, examples: int = 10, not_finite: tuple[str, ...] = (), **m: float
) -> bool:
    return job.scored(version=version, site=site, metrics=m, num_examples=examples, not_finite=not_finite)


def stops(job: TrainingJob, version: int = 1) -> str | None:
    return job.stop_reason(version=version, updates=version, now=1.0)


def test_a_version_without_a_finite_loss_somewhere_is_never_the_best() -> None:
    # given a version that two sites scored, and a better one at one site that is not finite at the other
    job = running("a", "b")
    for site in ("a", "b"):
        scores(job, site, 1, loss=0.5)
    scores(job, "b", 2, not_finite=("loss",), accuracy=0.1)
    scores(job, "a", 2, loss=0.1)
    assert job.best == (1, 0.5)
    # and when it is finite everywhere again, it counts again
    for site in ("a", "b"):
        scores(job, site, 3, loss=0.3)
    assert job.best == (3, 0.3)


def test_a_version_without_a_finite_loss_somewhere_reaches_no_target() -> None:
    job = running("a", "b", target={"metric": "accuracy", "at_least": 0.8})
    scores(job, "a", 1, loss=0.1, accuracy=0.9)
    scores(job, "b", 1, not_finite=("loss",), accuracy=0.9)
    assert stops(job) is None
    scores(job, "b", 2, loss=0.1, accuracy=0.9)
    assert stops(job) == "accuracy 0.9 reached the target of at least 0.8"


def test_a_metric_that_has_no_value_at_one_site_is_that_of_the_others() -> None:
    # such as the AUC where all patients are ill; the loss is finite there
    job = running("a", "b", target={"metric": "auc", "at_least": 0.8})
    scores(job, "a", 1, loss=0.1, auc=0.9)
    scores(job, "b", 1, loss=0.1, not_finite=("auc",))
    assert stops(job) is not None
    assert job.not_finite.keys() == {"b"}


def test_versions_that_are_not_finite_are_no_improvement() -> None:
    job = running("a", patience=2)
    scores(job, "a", 1, loss=0.5)
    for version in (2, 3):
        scores(job, "a", version, not_finite=("loss",))
    assert stops(job, 3) == "loss has not improved on 0.5 of version 1 for 2 versions"


def test_nan_that_was_not_told_apart_is_not_finite_as_well() -> None:
    assert Score.of(version=1, metrics={"loss": math.nan, "auc": 0.5}, num_examples=1).not_finite == ("loss",)


def test_a_site_that_cannot_score_is_not_waited_for_at_the_end() -> None:
    job = running("a", "b")
    job.finishing("done", now=1.0, score=[5])
    scores(job, "a", 5, loss=0.1)
    assert job.missing_scores() == [(5, "b")]
    job.cannot_score(version=5, site="b", reason="no test data")
    assert job.missing_scores() == []
    assert job.failed_scores(5) == {"b": "no test data"}
    # and when it could after all, that counts
    scores(job, "b", 5, loss=0.2)
    assert job.failed_scores(5) == {}
    assert job.final_scores(5).keys() == {"a", "b"}


def test_a_site_that_cannot_score_any_more_does_not_hold_the_mean_where_it_was() -> None:
    job = running("a", "b")
    for site, loss in (("a", 0.2), ("b", 0.8)):
        scores(job, site, 1, loss=loss)
    job.cannot_score(version=2, site="b", reason="disk is gone")
    assert job.mean("loss") == 0.2


@pytest.mark.parametrize(("value", "examples"), [(1.0, 10**12), (1e9, 10), (1e300, 10**30)])
def test_no_site_reaches_a_target_alone_whatever_it_claims(value: float, examples: int) -> None:
    # given three sites that are far from the target
    job = running("a", "b", "c", "liar", target={"metric": "auc", "at_least": 0.8})
    for site in ("a", "b", "c"):
        scores(job, site, 1, auc=0.6)
    scores(job, "liar", 1, auc=value, examples=examples)
    assert stops(job) is None
    # and when they are there, it is reached, whatever the other says
    for site in ("a", "b", "c"):
        scores(job, site, 2, auc=0.85)
    assert stops(job) is not None


@pytest.mark.parametrize("value", [-1e9, 1e9, 1.7e308])
def test_no_value_of_one_site_is_out_of_proportion_in_the_mean(value: float) -> None:
    honest = [(100, 0.3), (100, 0.4), (100, 0.35)]
    assert abs(mean_of([*honest, (10**12, value)])) < 5.0


def test_a_mean_of_honest_sites_is_the_weighted_mean() -> None:
    assert mean_of([(100, 0.3), (300, 0.5)]) == pytest.approx(0.45)
    assert mean_of([(100, 0.3), (200, 0.5), (250, 2.5)]) == pytest.approx((30 + 100 + 625) / 550)


def test_a_score_without_examples_does_not_count_and_one_with_thousands_of_metrics_is_cut() -> None:
    job = running("a")
    assert not scores(job, "a", 1, auc=1.0, examples=0)
    nothing, some = (Score(version=1, metrics={"auc": 1 / (1 + n)}, num_examples=n) for n in (0, 1))
    assert (means_of([nothing]), means_of([nothing, some, nothing])) == ({}, {"auc": 0.5})
    many = {f"m{n}": 0.0 for n in range(10_000)}
    assert len(Score.of(version=1, metrics=many, num_examples=1).metrics) == MOST_METRICS
