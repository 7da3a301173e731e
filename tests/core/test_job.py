"""The life of a job: transitions, answers, scores and stop rules."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from fedbus.core.job.training import TrainingJob
from fedbus.core.protocol.messages import JobState
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import ProtocolError


def job(stop: dict[str, Any] | None = None, **keys: Any) -> TrainingJob:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    data = {"name": "job", "task": "digits", "local": local, "stop": stop or {"versions": 10}}
    return TrainingJob(TrainingSpec.parse(data | keys))


def running(stop: dict[str, Any] | None = None, *, sites: str = "a b", **keys: Any) -> TrainingJob:
    made = job(stop, **keys)
    made.offered(now=0.0)
    for site in sites.split():
        made.accepted(site)
    made.set_active(sites.split())
    made.started(now=100.0)
    return made


STEPS: dict[str, Callable[[TrainingJob], None]] = {
    "offered": lambda made: made.offered(now=1.0),
    "started": lambda made: made.started(now=2.0),
    "finishing": lambda made: made.finishing("done", now=3.0),
    "finished": lambda made: made.finished(now=4.0),
    "failed": lambda made: made.failed("no site can train", now=5.0),
    "aborted": lambda made: made.aborted("by ann", now=6.0),
}


def test_a_job_goes_its_way() -> None:
    made = job()
    seen = [made.state]

    for step in ("offered", "started", "finishing", "finished"):
        STEPS[step](made)
        seen.append(made.state)

    assert seen == ["submitted", "waiting for sites", "running", "finishing", "finished"]
    assert (made.reason, made.since) == ("done", 4.0)


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ((), "started"),
        ((), "finished"),
        (("offered",), "offered"),
        (("offered",), "finishing"),
        (("offered", "started"), "finished"),
        (("offered", "started", "finishing"), "started"),
        (("offered", "started", "finishing", "finished"), "aborted"),
        (("aborted",), "failed"),
        (("failed",), "aborted"),
        (("aborted",), "offered"),
    ],
)
def test_an_illegal_transition_changes_nothing(path: tuple[str, ...], step: str) -> None:
    made = job()
    for before in path:
        STEPS[before](made)
    state = (made.state, made.since, made.reason)

    with pytest.raises(ProtocolError):
        STEPS[step](made)

    assert (made.state, made.since, made.reason) == state


@pytest.mark.parametrize("path", [(), ("offered",), ("offered", "started"), ("offered", "started", "finishing")])
def test_a_job_can_be_aborted_until_it_has_ended(path: tuple[str, ...]) -> None:
    made = job()
    for step in path:
        STEPS[step](made)

    made.aborted("by ann", now=9.0)

    assert (made.state, made.reason) == (JobState.ABORTED, "by ann")


def test_a_job_starts_when_enough_accepting_sites_are_online() -> None:
    made = job(min_sites=2)
    made.offered(now=0.0)
    made.accepted("a")
    made.accepted("b")
    made.declined("c", "task 'digits' is not installed here")

    assert not made.can_start(online={"a", "c"})
    assert made.waiting_for(online={"a", "c"}) == (
        "waiting for sites: 1 of 2 accepted; declined: c (task 'digits' is not installed here)"
    )
    assert made.can_start(online={"a", "b"})


def test_a_site_may_change_its_answer() -> None:
    made = running()

    made.declined("a", "maintenance")
    assert (made.accepted_sites, made.declined_sites) == ({"b"}, {"a": "maintenance"})

    made.accepted("a")
    assert (made.accepted_sites, made.declined_sites) == ({"a", "b"}, {})


def test_an_answer_that_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="not offered"):
        job().accepted("a")
    with pytest.raises(ProtocolError, match="not offered"):
        job().declined("a", "no")


def test_an_answer_of_a_site_that_the_job_does_not_name_is_an_error() -> None:
    data = running().spec.to_dict() | {"sites": ["a"]}
    made = TrainingJob(TrainingSpec.parse(data))
    made.offered(now=0.0)

    with pytest.raises(ProtocolError, match="site b answers for job job, which was not offered to it"):
        made.accepted("b")

    assert made.accepted_sites == frozenset()


def test_an_answer_that_comes_too_late_is_no_error() -> None:
    made = running()
    made.finishing("done", now=200.0)

    assert not made.accepted("c")
    assert made.accepted_sites == {"a", "b"}


@pytest.mark.parametrize(
    ("stop", "version", "updates", "now", "reason"),
    [
        ({"versions": 10}, 9, 999, 1e9, None),
        ({"versions": 10}, 10, 0, 0.0, "version 10 of 10 is there"),
        ({"updates": 30}, 99, 29, 1e9, None),
        ({"updates": 30}, 0, 30, 0.0, "30 of 30 updates are folded"),
        ({"wall_time_s": 60}, 99, 99, 159.9, None),
        ({"wall_time_s": 60}, 0, 0, 160.0, "the wall time of 60 s is over"),
    ],
)
def test_stop_rules_that_count(
    stop: dict[str, Any], version: int, updates: int, now: float, reason: str | None
) -> None:
    assert running(stop).stop_reason(version=version, updates=updates, now=now) == reason


def test_only_a_running_job_stops() -> None:
    made = job({"versions": 1})

    assert made.stop_reason(version=5, updates=5, now=5.0) is None
    assert made.wall_time_ends_at() is None


def test_wall_time_runs_from_the_start() -> None:
    assert running({"wall_time_s": 60}).wall_time_ends_at() == 160.0


def test_a_job_that_does_not_run_any_more_waits_for_no_wall_time() -> None:
    made = running({"wall_time_s": 60})
    made.finishing("the wall time of 60 s is over", now=160.0)
    assert made.wall_time_ends_at() is None


def reason_of(made: TrainingJob) -> str | None:
    return made.stop_reason(version=1, updates=1, now=100.0)


def test_the_target_looks_at_the_mean_over_sites_weighted_by_examples() -> None:
    made = running({"target": {"metric": "auc", "at_least": 0.8}})
    made.scored(version=3, site="a", metrics={"auc": 0.7}, num_examples=100)
    assert reason_of(made) is None

    made.scored(version=2, site="b", metrics={"auc": 0.9}, num_examples=300)

    assert made.mean("auc") == pytest.approx(0.85)
    assert reason_of(made) == "auc 0.85 reached the target of at least 0.8"


def test_a_target_can_be_an_upper_bound() -> None:
    made = running({"target": {"metric": "loss", "at_most": 0.3}}, sites="a")

    made.scored(version=1, site="a", metrics={"loss": 0.25}, num_examples=1)

    assert reason_of(made) == "loss 0.25 reached the target of at most 0.3"


def test_one_fast_site_does_not_reach_the_target_for_all() -> None:
    made = running({"target": {"metric": "auc", "at_least": 0.8}}, sites="a b c d")

    made.scored(version=1, site="a", metrics={"auc": 0.99}, num_examples=1)
    assert reason_of(made) is None

    made.scored(version=1, site="b", metrics={"auc": 0.99}, num_examples=1)
    assert reason_of(made) is not None


@pytest.mark.parametrize(
    ("site", "version", "metrics", "num_examples"),
    [
        ("stranger", 5, {"auc": 0.9}, 10),
        ("a", 3, {"auc": 0.9}, 10),
        ("a", 5, {"auc": 0.9}, 0),
        ("a", 5, {"auc": 0.9}, -4),
    ],
)
def test_a_score_that_does_not_count(site: str, version: int, metrics: dict[str, float], num_examples: int) -> None:
    made = running(sites="a")
    made.scored(version=4, site="a", metrics={"auc": 0.5}, num_examples=10)

    assert not made.scored(version=version, site=site, metrics=metrics, num_examples=num_examples)

    assert made.means() == {"auc": 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_site_without_a_usable_value_does_not_count_in_the_mean(value: float | None) -> None:
    made = running(sites="a b")
    made.scored(version=1, site="a", metrics={"auc": 0.5}, num_examples=10)

    made.scored(version=1, site="b", metrics={} if value is None else {"auc": value}, num_examples=1000)

    assert made.mean("auc") == 0.5


def test_a_site_that_is_gone_does_not_hold_the_mean() -> None:
    made = running(sites="a b")
    made.scored(version=1, site="a", metrics={"auc": 0.5}, num_examples=10)
    made.scored(version=1, site="b", metrics={"auc": 0.9}, num_examples=10)

    made.set_active(["b"])

    assert made.mean("auc") == 0.9


def test_patience_counts_scored_versions_since_the_best() -> None:
    made = running({"patience": {"versions": 3, "metric": "auc", "better": "higher"}}, sites="a")
    reasons = []
    for version, auc in [(1, 0.5), (4, 0.8), (5, 0.7), (9, 0.8), (10, 0.6)]:
        made.scored(version=version, site="a", metrics={"auc": auc}, num_examples=1)
        reasons.append(reason_of(made))

    assert reasons == [None, None, None, None, "auc has not improved on 0.8 of version 4 for 3 versions"]
    assert made.best == (4, 0.8)


def test_a_version_is_best_only_while_all_its_scores_say_so() -> None:
    made = running({"patience": {"versions": 9, "metric": "auc", "better": "higher"}}, sites="a b")
    made.scored(version=1, site="a", metrics={"auc": 0.6}, num_examples=1)
    made.scored(version=1, site="b", metrics={"auc": 0.6}, num_examples=1)
    made.scored(version=2, site="a", metrics={"auc": 0.9}, num_examples=1)
    assert made.best == (2, pytest.approx(0.75))

    made.scored(version=2, site="b", metrics={"auc": 0.1}, num_examples=1)

    assert made.best == (1, 0.6)


def test_patience_goes_on_where_it_was_with_the_points_from_before() -> None:
    stop = {"patience": {"versions": 3, "metric": "auc", "better": "higher"}}
    before = running(stop, sites="a")
    points = []
    for version, auc in enumerate([0.5, 0.9, 0.8]):
        before.scored(version=version, site="a", metrics={"auc": auc}, num_examples=1)
        points.append(before.trend_point)
    assert points == [(0, 0.5), (1, 0.9), (2, 0.8)]
    # when the aggregator is started anew
    after = running(stop, sites="a")
    after.took_trend(points)
    assert (after.best, reason_of(after)) == ((1, 0.9), None)
    reasons = []
    for version in (3, 4):
        after.scored(version=version, site="a", metrics={"auc": 0.7}, num_examples=1)
        reasons.append(reason_of(after))
    assert reasons == [None, "auc has not improved on 0.9 of version 1 for 3 versions"]


def test_a_version_that_was_broken_is_no_improvement_after_a_restart_either() -> None:
    before = running(sites="a")
    before.scored(version=1, site="a", metrics={"loss": math.nan}, num_examples=1)
    assert before.trend_point == (1, None)
    after = running(sites="a")
    after.took_trend([(0, 0.4), (1, None)])
    assert after.best == (0, 0.4)


def test_without_target_and_patience_the_lowest_loss_is_best() -> None:
    made = running(sites="a")
    for version, loss in [(1, 0.9), (2, 0.4), (3, 0.6)]:
        made.scored(version=version, site="a", metrics={"loss": loss}, num_examples=1)

    assert made.best == (2, 0.4)


def test_a_score_that_was_made_before_the_site_was_asked_is_no_final_one() -> None:
    made = running(sites="a b")
    made.finishing("done", now=200.0, score=[4])
    # what a site of the release before sends says nothing of it, and counts
    assert made.scored(version=4, site="b", metrics={"auc": 0.8}, num_examples=10)
    assert not made.scored(version=4, site="a", metrics={"auc": 0.8}, num_examples=10, asked=False)
    assert made.missing_scores() == [(4, "a")]
    assert made.scored(version=4, site="a", metrics={"auc": 0.8}, num_examples=10, asked=True)
    assert made.missing_scores() == []


def test_while_finishing_the_sites_score_the_versions_that_were_named() -> None:
    made = running(sites="a b")
    made.scored(version=7, site="a", metrics={"auc": 0.5}, num_examples=10)
    made.finishing("done", now=200.0, score=[4, 9])

    assert made.scored(version=4, site="a", metrics={"auc": 0.8}, num_examples=10)
    assert not made.scored(version=5, site="a", metrics={"auc": 0.8}, num_examples=10)

    assert made.missing_scores() == [(4, "b"), (9, "a"), (9, "b")]
    assert {site: score.metrics for site, score in made.final_scores(4).items()} == {"a": {"auc": 0.8}}
    made.set_active(["a"])
    assert made.missing_scores() == [(9, "a")]
