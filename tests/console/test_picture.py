"""The picture that a job's events come to, event by event."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.console.kept import Contribution, Point
from fedbus.console.picture import Picture, Presence, SitePicture
from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event

SUBMITTED = e.JobSubmitted(login="ana", task="digits")
RUNNING = e.JobRunning(sites=("va",))


def picture_of(*happened: e.Happened, picture: Picture | None = None) -> Picture:
    """The picture after these, on top of another; each comes one second after the one before."""
    found = deepcopy(picture or Picture())
    for second, one in enumerate(happened):
        found.take(e.wire_of(one, job="heart", at=float(second)))
    return found


def folded(site: str, number: int, *, staleness: int = 0) -> e.UpdateFolded:
    return e.UpdateFolded(site=site, update=f"{site}:0123abcd:{number}", staleness=staleness, body_bytes=100)


def committed(version: int, *updates: e.UpdateFolded) -> e.VersionCommitted:
    return e.VersionCommitted(version=version, updates=tuple(u.update for u in updates), body_bytes=25)


@pytest.mark.parametrize(
    ("happened", "state", "says"),
    [
        ([SUBMITTED], "submitted", ""),
        ([SUBMITTED, e.JobWaiting(what="waiting for sites")], "waiting for sites", "waiting for sites"),
        ([SUBMITTED, e.JobWaiting(what="no site"), RUNNING], "running", ""),
        ([RUNNING, e.JobWaiting(what="waiting for 1 more update")], "running", "waiting for 1 more update"),
        ([RUNNING, e.JobWaiting(what="waiting"), committed(1)], "running", ""),
        (
            [RUNNING, e.JobPaused(why="1 of 2")],
            "running",
            "paused: 1 of 2; updates that come wait, nothing is lost",
        ),
        ([RUNNING, e.JobPaused(why="1 of 2"), e.JobResumed(there=("va",))], "running", ""),
        ([e.JobContinues(version=1, away="3 s")], "running", "continues at version 1 after 3 s without an aggregator"),
        ([RUNNING, e.JobFinishing(version=9, reason="done", comes="scores")], "finishing", "done; scores"),
        ([RUNNING, e.JobEnded(state="failed", reason="no site")], "failed", "failed: no site"),
        ([e.JobEnded(state="of a later release", reason="why")], "of a later release", "of a later release: why"),
    ],
    ids=str,
)
def test_a_job_is_in_a_state_and_says_why_it_waits(happened: list[e.Happened], state: str, says: str) -> None:
    picture = picture_of(*happened)
    assert (picture.state, picture.says) == (state, says)


def test_updates_are_counted_by_site_and_become_a_version() -> None:
    first, second, third = folded("va", 1, staleness=2), folded("ucsf", 1), folded("va", 2, staleness=1)
    picture = picture_of(SUBMITTED, RUNNING, first, second, committed(1, first, second), third)
    assert (picture.version, picture.updates, picture.update_bytes, picture.version_bytes) == (1, 3, 300, 25)
    assert (picture.site("va").updates, picture.site("va").mean_staleness) == (2, 1.5)
    made = (
        Contribution(update=first.update, site="va", staleness=2),
        Contribution(update=second.update, site="ucsf", staleness=0),
    )
    assert list(picture.newest_versions) == [Point(version=1, at=4.0, contributions=made)]
    assert list(picture.buffer.values()) == [Contribution(update=third.update, site="va", staleness=1)]
    assert picture.training_s == 3.0


def test_a_version_of_updates_that_were_not_seen_still_names_its_sites() -> None:
    versions = picture_of(committed(7, folded("va", 1)), e.VersionCommitted(version=8, updates=("?",))).newest_versions
    assert [[made.site for made in point.contributions] for point in versions] == [["va"], [e.NOBODY]]


def test_scores_are_those_of_the_newest_version_and_means_belong_to_theirs() -> None:
    def scored(version: int, auc: float) -> e.VersionScored:
        return e.VersionScored(site="va", version=version, metrics={"auc": auc}, means={"auc": auc / 2})

    picture = picture_of(committed(1), committed(2), scored(2, 0.75), scored(1, 0.5))
    assert (picture.site("va").scored_version, picture.site("va").metrics) == (2, {"auc": 0.75})
    assert (list(picture.means.versions), list(picture.means.columns["auc"])) == ([2], [0.375])
    assert (list(picture.scores["va"].versions), list(picture.scores["va"].columns["auc"])) == ([1, 2], [0.5, 0.75])


def test_who_comes_goes_and_comes_back_is_there_with_versions() -> None:
    here, gone = e.SiteAccepted(site="va"), e.SiteLost(site="va", reason="silent")
    before = picture_of(here)
    assert before.site("va") == SitePicture(presence=Presence.HERE, joined_at=0)
    late = picture_of(RUNNING, committed(3), here)
    assert late.site("va").joined_at == 3
    away = picture_of(gone, picture=late)
    assert (away.site("va").presence, away.site("va").left_at) == (Presence.LOST, 3)
    assert away.site("va").trouble == "va is lost: silent"
    assert away.waiting_for() == ["va"]
    back = picture_of(committed(4), e.SiteReturned(site="va", how="is back"), folded("va", 1), picture=away)
    assert (back.site("va").presence, back.site("va").back_at, back.site("va").updates_since_back) == (
        Presence.HERE,
        4,
        1,
    )
    assert back.waiting_for() == []
    assert picture_of(here, picture=back).sites == back.sites


@pytest.mark.parametrize(
    ("happened", "presence", "trouble"),
    [
        (e.SiteLeft(site="va", reason="stopped"), Presence.LEFT, "va left: stopped"),
        (e.SiteDeclined(site="va", reason="no task"), Presence.DECLINED, "va declined: no task"),
        (e.TrainerTrouble(site="va", error="killed"), Presence.HERE, "va: killed; it tries again"),
        (e.ScoreFailed(site="va", version=1, reason="no data"), Presence.HERE, "va could not score version 1: no data"),
    ],
    ids=str,
)
def test_a_site_says_why(happened: e.Happened, presence: Presence, trouble: str) -> None:
    site = picture_of(e.SiteJoined(site="va"), happened).site("va")
    assert (site.presence, site.trouble) == (presence, trouble)


def test_refusals_and_the_rule_are_counted_in() -> None:
    refused = e.UpdateRefused(site="va", update="va:0123abcd:1", reason="too many")
    picture = picture_of(refused, e.RuleChosen(version=3, rule="calibrated", reason="va is slow"))
    assert (picture.refused, picture.site("va").refused, picture.rule) == (1, 1, "calibrated")


def test_a_job_that_has_ended_well_is_finished_and_leaves_its_result() -> None:
    ended = picture_of(RUNNING, e.JobEnded(state="finished", reason="done", result={"version": 9}))
    assert (ended.ended, ended.finished, ended.running, ended.result) == (True, True, False, {"version": 9})
    assert not picture_of(e.JobEnded(state="aborted", reason="by ana")).finished


def test_what_happens_in_another_job_changes_nothing() -> None:
    picture = picture_of(SUBMITTED)
    picture.take(e.wire_of(RUNNING, job="lungs", at=9.0))
    assert picture == picture_of(SUBMITTED)


SOMETHING = picture_of(SUBMITTED, e.SiteAccepted(site="va"), RUNNING, folded("va", 1), committed(1, folded("va", 1)))
NEEDED = {
    "update-folded": ("update",),
    "version-committed": ("version",),
    "version-scored": ("version",),
    "job-ended": ("state",),
    "rule-chosen": ("version", "rule"),
}
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just([]) | st.just({})


@given(kind=st.text().filter(lambda kind: kind not in e.BY_KIND), facts=st.dictionaries(st.text(), VALUES))
def test_an_event_of_an_unknown_kind_changes_nothing(kind: str, facts: dict[str, Any]) -> None:
    event = Event(at=9.0, job="heart", site="va", kind=kind, text="something", facts=facts)
    picture = deepcopy(SOMETHING)
    picture.take(event)
    assert picture == SOMETHING


@given(kind=st.sampled_from(sorted(NEEDED)), facts=st.dictionaries(st.sampled_from(["step", "colour"]), VALUES))
def test_an_event_that_lacks_what_it_needs_changes_nothing(kind: str, facts: dict[str, Any]) -> None:
    event = Event(at=9.0, job="heart", site="va", kind=kind, text="something", facts=facts)
    picture = deepcopy(SOMETHING)
    picture.take(event)
    assert picture == SOMETHING


@given(
    said=st.lists(
        st.tuples(
            st.sampled_from(sorted(e.BY_KIND)),
            st.dictionaries(
                st.sampled_from(["update", "updates", "version", "state", "result", "metrics", "means", "staleness"]),
                VALUES | st.integers(0, 5) | st.just(["va:0123abcd:1"]) | st.just("va:0123abcd:1"),
            ),
        ),
        max_size=8,
    )
)
def test_no_event_raises_whatever_it_says(said: list[tuple[str, dict[str, Any]]]) -> None:
    picture = deepcopy(SOMETHING)
    for kind, facts in said:
        picture.take(Event(at=9.0, job="heart", site="va", kind=kind, text="something", facts=facts))
    assert picture.job == "heart"
