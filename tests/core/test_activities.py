"""What sites say that they do, of this release and of others, is read and shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.activities import OF_VERSION, Activity
from fedbus.errors import DecodeError


def read(**activity: Any) -> m.JobActivity:
    """An activity as a site says it, as the aggregator reads it."""
    jobs = [{"job": "heart", "version": 1, **activity}]
    body = json.dumps({"site": "mercy", "session": "s", "lease_s": 9.0, "jobs": jobs}).encode()
    status = wire.decode("status", {"schema": wire.SCHEMA}, body)
    assert isinstance(status, m.SiteStatus)
    return status.jobs[0]


@pytest.mark.parametrize("activity", [a for a in Activity if a not in OF_VERSION | {Activity.OTHER}], ids=str)
def test_the_phrase_of_an_activity_is_its_value_and_the_detail_stands_beside_it(activity: Activity) -> None:
    said = read(activity=str(activity), detail="3 before it")
    assert (said.activity, said.phrase, said.note) == (activity, str(activity), "3 before it")


@pytest.mark.parametrize("activity", sorted(OF_VERSION))
def test_a_version_is_part_of_the_phrase_and_an_earlier_release_says_both_in_one(activity: Activity) -> None:
    said = m.JobActivity(job="heart", activity=activity, version=1, detail="12")
    assert (said.phrase, said.note) == (f"{activity} 12", "")
    assert read(activity=str(activity), detail="12") == read(activity=f"{activity} 12") == said


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"activity": "unpacking"}, "unpacking"),
        ({"activity": "unpacking", "detail": "41 %"}, "unpacking (41 %)"),
        ({"activity": "loading version twelve"}, "loading version twelve"),
        ({"activity": "", "detail": "x"}, "x"),
        ({"activity": ""}, "other"),
    ],
    ids=str,
)
def test_what_this_release_has_no_name_for_is_shown_as_it_was_said(said: dict[str, str], shown: str) -> None:
    activity = read(**said)
    assert (activity.activity, activity.phrase, activity.note) == (Activity.OTHER, shown, "")


@pytest.mark.parametrize("activity", [None, 7, ["training"], {"x": 1}], ids=str)
def test_what_is_no_phrase_is_refused(activity: Any) -> None:
    with pytest.raises(DecodeError, match="activity"):
        read(activity=activity)


def test_a_phrase_without_end_is_cut() -> None:
    assert len(read(activity="x" * 10_000).phrase) == 500
