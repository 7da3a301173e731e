"""A newcomer's questions have answers in one sentence, also while little is known."""

from __future__ import annotations

import pytest

from fedbus.console import newcomer
from fedbus.console.curve import Curve
from fedbus.console.picture import Picture, SitePicture
from fedbus.core.protocol.answers import JobDetail, SiteInJob


def curve(values: list[float], name: str = "accuracy") -> Curve:
    found = Curve()
    for version, value in enumerate(values):
        found.put(version, float(version), {name: value})
    return found


@pytest.mark.parametrize(
    ("values", "name", "begins"),
    [
        ([], "accuracy", "Not known yet: no site"),
        ([0.5], "accuracy", "Not known yet: accuracy is 0.500 at version 0"),
        ([0.5, 0.6, 0.7], "accuracy", "Yes: mean accuracy 0.500 at version 0, 0.700 at version 2."),
        ([0.5, 0.8, 0.7], "accuracy", "Yes: mean accuracy 0.500 at version 0, 0.700 at version 2; the best was 0.800"),
        ([0.5, 0.4, 0.3], "accuracy", "Not so far"),
        ([0.5, 0.4, 0.3], "loss", "Yes: mean loss"),
        ([0.5, 0.9, *[0.8] * 9], "accuracy", "Not any more"),
        ([0.5, 0.4], "volume", "It moves: mean volume"),
        ([float("nan"), 0.4, 0.6], "accuracy", "Yes: mean accuracy 0.400 at version 1"),
    ],
)
def test_whether_it_is_learning_is_said_with_the_numbers(values: list[float], name: str, begins: str) -> None:
    assert newcomer.learning(curve(values, name), {}).startswith(begins)


def test_each_site_is_held_against_itself_for_their_mean_falls_when_a_weaker_one_begins_to_score() -> None:
    means = curve([0.8, 0.9, 0.6, 0.7])
    scores = {"a": curve([0.8, 0.9, 0.91, 0.92]), "b": curve([0.3, 0.5]), "c": curve([0.5])}
    assert newcomer.learning(means, scores).startswith("Yes, at 2 of 2 sites: mean accuracy 0.800")
    worse = {"a": curve([0.8, 0.7]), "b": curve([0.3, 0.4])}
    assert newcomer.learning(means, worse).startswith("Not so far, at 1 of 2 sites: ")


def test_who_is_slow_is_named_with_what_the_median_site_does_and_who_is_away() -> None:
    sites = {
        "mercy": SiteInJob(updates=3, mean_staleness=4.0, state="lost"),
        "ucsf": SiteInJob(updates=14, mean_staleness=0.5, state="online"),
        "va": SiteInJob(updates=12, mean_staleness=0.9, state="online"),
    }
    assert newcomer.slow(sites) == (
        "mercy: 3 updates, 4.0 versions old on average; the median site: 12 updates, 0.9 versions old. "
        "Not there: mercy."
    )
    assert newcomer.slow(dict.fromkeys(("a", "b"), sites["ucsf"])) == "Nobody: the sites keep pace."
    assert newcomer.slow({"a": sites["ucsf"]}) == "There is no second site to compare with."


def test_what_each_site_gave_is_told_the_most_first_and_cut() -> None:
    sites = {f"s{n}": SiteInJob(updates=n, num_examples=100 * n, influence=n / 30) for n in range(7)}
    assert newcomer.contributed(sites).startswith("s6 6 updates of 600 samples, 20% of the last versions; s5")
    assert newcomer.contributed(sites).endswith("; 2 more.")
    assert newcomer.contributed({"a": SiteInJob()}) == "Nothing yet: no update is in the model."


def test_why_it_waits_is_the_aggregators_sentence_or_how_it_ended() -> None:
    running = JobDetail(job="j", state="running", says="waiting for 1 more update; offline: mercy (since 14 min)")
    assert newcomer.waiting(running) == "Waiting for 1 more update; offline: mercy (since 14 min)."
    ended = JobDetail(job="j", state="finished", ended_at=1.0, result={"reason": "40 versions"})
    assert newcomer.waiting(ended) == "It does not: it is finished, 40 versions."


def test_what_left_is_told_in_bytes_by_site_once_all_events_are_known() -> None:
    picture = Picture(job="j", updates=3, whole=True)
    picture.sites.update(a=SitePicture(updates=2, update_bytes=9), b=SitePicture(updates=1, update_bytes=99))
    said = newcomer.left(picture, bytes_words={"": "108 B", "a": "9 B", "b": "99 B"})
    assert said == "108 B of compressed changes in 3 updates: b 99 B; a 9 B. No sample ever does."
    assert newcomer.left(Picture(), bytes_words={}) == "Updates, scores and counts. No sample ever does."
