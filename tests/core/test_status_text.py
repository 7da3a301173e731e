"""The sentence that says why a job waits."""

import pytest

from fedbus.core.job.membership import Membership
from fedbus.core.job.status_text import span, waiting_sentence
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.messages import JobActivity, Join, Leave, SiteStatus


def join(members: Membership, site: str, *, now: float, activity: JobActivity | None = None) -> None:
    members.joined(Join(site=site, session="s", tasks=(), fedbus_version="0.1.0"), now=now)
    jobs = () if activity is None else (activity,)
    members.status(SiteStatus(site=site, session="s", lease_s=10.0, jobs=jobs), now=now)


def test_the_sentence_says_what_is_waited_for_and_where_everybody_is() -> None:
    members = Membership()
    join(members, "va", now=0.0)
    members.expire(now=10.0)
    join(members, "ucsf", now=840.0, activity=JobActivity(job="heart", activity=Activity.TRAINING, version=3))
    join(
        members,
        "mercy",
        now=840.0,
        activity=JobActivity(job="heart", activity=Activity.TRAINING, version=3, step=40, steps=120),
    )
    join(members, "zurich", now=840.0)
    members.left(Leave(site="zurich", session="s"), now=845.0)
    join(members, "basel", now=845.0, activity=JobActivity(job="other", activity=Activity.TRAINING, version=1))
    loading = JobActivity(job="heart", activity=Activity.LOADING_DATA, version=1, detail="41 %")
    join(members, "bern", now=845.0, activity=loading)

    text = waiting_sentence("waiting for 1 more update, buffer 1 of 2", members.views(), job="heart", now=850.0)

    assert text == (
        "waiting for 1 more update, buffer 1 of 2; va offline 14 min, zurich left 5 s ago, basel online, "
        "bern loading data, 41 %, mercy training step 40/120, ucsf training"
    )


def test_the_sentence_says_how_long_a_training_still_takes_once_its_speed_is_known() -> None:
    members = Membership()

    def said(step: int, *, now: float, version: int = 3) -> str:
        doing = JobActivity(job="heart", activity=Activity.TRAINING, version=version, step=step, steps=120)
        members.status(SiteStatus(site="ucsf", session="s", lease_s=60.0, jobs=(doing,)), now=now)
        return waiting_sentence("buffer 2 of 4", members.views(), job="heart", now=now)

    join(members, "ucsf", now=0.0)
    assert said(0, now=0.0) == "buffer 2 of 4; ucsf training step 0/120"
    assert said(40, now=180.0) == "buffer 2 of 4; ucsf training step 40/120, ~6 min left"
    assert said(40, now=240.0) == "buffer 2 of 4; ucsf training step 40/120, ~5 min left"
    assert said(1, now=600.0, version=4) == "buffer 2 of 4; ucsf training step 1/120, ~8 min left"
    assert said(121, now=800.0, version=4) == "buffer 2 of 4; ucsf training step 121/120"


def test_of_very_many_sites_the_sentence_names_those_that_are_away_and_a_few_more() -> None:
    members = Membership()
    for number in range(200):
        join(members, f"site-{number:03}", now=0.0)
    members.left(Leave(site="site-150", session="s"), now=1.0)
    text = waiting_sentence("buffer 2 of 4", members.views(), job="heart", now=2.0)
    assert text.startswith("buffer 2 of 4; site-150 left 1 s ago, site-000 online, ")
    assert text.endswith(", and 188 more sites")


def test_a_site_that_left_for_a_reason_of_its_own_says_it() -> None:
    members = Membership()
    join(members, "mercy", now=0.0)
    members.left(Leave(site="mercy", session="s", reason="the site's policy cannot be read: 1 key wrong"), now=1.0)

    text = waiting_sentence("waiting for sites: 0 of 1 accepted", members.views(), job="heart", now=4.0)

    assert text.endswith("; mercy left 3 s ago (the site's policy cannot be read: 1 key wrong)")


def test_without_sites_only_the_reason_is_left() -> None:
    assert waiting_sentence("waiting for the next update", (), job="heart", now=0.0) == "waiting for the next update"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text
