"""Who is here: joins, leases, goodbyes, and two daemons with one name."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.job.membership import Heard, Joined, Membership, SiteState
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.messages import JobActivity, Join, Leave, SiteStatus


def join(site: str = "va", session: str = "s1", tasks: tuple[str, ...] = ("digits",)) -> Join:
    return Join(site=site, session=session, tasks=tasks, fedbus_version="0.1.0", device="cuda:0")


def status(site: str = "va", session: str = "s1", lease_s: float = 10.0, *jobs: JobActivity) -> SiteStatus:
    return SiteStatus(site=site, session=session, lease_s=lease_s, jobs=jobs)


def leave(site: str = "va", session: str = "s1") -> Leave:
    return Leave(site=site, session=session, reason="maintenance")


def members_with_va() -> Membership:
    members = Membership()
    members.joined(join(), now=0.0)
    return members


def test_a_site_that_joins_is_online_with_what_it_said() -> None:
    members = Membership()

    assert members.joined(join(), now=5.0) is Joined.NEW

    view = members.get("va")
    assert view is not None
    assert (view.state, view.since, view.session, view.tasks, view.device) == (
        SiteState.ONLINE,
        5.0,
        "s1",
        ("digits",),
        "cuda:0",
    )
    assert members.online(now=5.0) == {"va"}


def test_status_renews_the_lease_and_says_what_the_site_does() -> None:
    members = members_with_va()
    training = JobActivity(job="heart", activity=Activity.TRAINING, version=3, step=1, steps=9)

    assert members.status(status("va", "s1", 10.0, training), now=20.0) is Heard.RENEWED

    view = members.get("va")
    assert view is not None
    assert view.activities == {"heart": training}
    assert (view.since, view.last_heard_at, view.lease_until) == (0.0, 20.0, 30.0)


def test_a_silent_site_is_lost_once() -> None:
    members = members_with_va()
    members.joined(join("mercy"), now=0.0)
    members.status(status(lease_s=10.0), now=1.0)

    assert members.expire(now=10.9) == []
    assert members.online(now=11.0) == {"mercy"}
    assert members.expire(now=11.0) == ["va"]
    assert members.expire(now=12.0) == []

    view = members.get("va")
    assert view is not None
    assert (view.state, view.since, view.reason) == (SiteState.LOST, 11.0, "nothing heard for 10 s")


def test_a_lost_site_is_back_with_its_next_status() -> None:
    members = members_with_va()
    members.expire(now=100.0)

    assert members.status(status(), now=101.0) is Heard.BACK

    view = members.get("va")
    assert view is not None
    assert (view.state, view.since, view.reason) == (SiteState.ONLINE, 101.0, "")


def test_a_site_that_left_is_not_brought_back_by_a_late_status() -> None:
    members = members_with_va()

    assert members.left(leave(), now=3.0) is Heard.RENEWED

    assert members.status(status(), now=4.0) is Heard.HAS_LEFT
    view = members.get("va")
    assert view is not None
    assert (view.state, view.since, view.reason) == (SiteState.LEFT, 3.0, "maintenance")
    assert members.expire(now=1e6) == []


def test_a_site_that_left_or_was_lost_returns_with_a_join() -> None:
    members = members_with_va()
    members.left(leave(), now=3.0)
    assert members.joined(join(session="s2"), now=4.0) is Joined.RETURNED
    members.expire(now=100.0)

    assert members.joined(join(session="s2"), now=101.0) is Joined.RETURNED
    assert members.online(now=101.0) == {"va"}


def test_the_answer_to_a_roll_call_changes_nothing_for_a_site_that_is_online() -> None:
    members = members_with_va()
    members.status(status(lease_s=100.0), now=1.0)

    assert members.joined(join(), now=2.0) is Joined.AGAIN

    view = members.get("va")
    assert view is not None
    assert (view.since, view.lease_until) == (0.0, 101.0)


def test_the_newest_session_counts_and_the_older_one_is_ignored() -> None:
    members = members_with_va()
    assert members.joined(join(session="s2"), now=1.0) is Joined.REPLACED

    assert members.status(status(session="s1"), now=2.0) is Heard.OLD_SESSION
    assert members.left(leave(session="s1"), now=2.0) is Heard.OLD_SESSION
    assert members.joined(join(session="s1"), now=2.0) is Joined.OLD_SESSION

    view = members.get("va")
    assert view is not None
    assert (view.session, view.state) == ("s2", SiteState.ONLINE)


def test_a_site_that_never_joined_is_unknown() -> None:
    members = Membership()

    assert members.status(status(), now=0.0) is Heard.UNKNOWN_SITE
    assert members.left(leave(), now=0.0) is Heard.UNKNOWN_SITE
    assert members.get("va") is None
    assert members.views() == ()


def test_of_many_statuses_that_waited_for_a_new_aggregator_only_the_first_asks_who_it_is() -> None:
    members = Membership()
    heard = [members.status(status(), now=now) for now in (0.0, 0.1, 4.9, 5.0)]
    assert heard == [Heard.UNKNOWN_SITE, Heard.UNKNOWN_AGAIN, Heard.UNKNOWN_AGAIN, Heard.UNKNOWN_SITE]
    assert members.status(status("hungary"), now=0.1) is Heard.UNKNOWN_SITE


@pytest.mark.parametrize(
    ("wanted_s", "lease_s"), [(math.nan, 1.0), (-5.0, 1.0), (0.0, 1.0), (60.0, 60.0), (1e9, 3600.0), (math.inf, 3600.0)]
)
def test_a_lease_is_kept_within_reason(wanted_s: float, lease_s: float) -> None:
    members = members_with_va()

    members.status(status(lease_s=wanted_s), now=10.0)

    va = members.get("va")
    assert va is not None
    assert va.lease_until == 10.0 + lease_s


SESSIONS = st.sampled_from(["s1", "s2", "s3"])
MESSAGES = st.one_of(
    st.builds(join, st.sampled_from(["va", "mercy"]), SESSIONS),
    st.builds(status, st.sampled_from(["va", "mercy"]), SESSIONS, st.floats(0, 50)),
    st.builds(leave, st.sampled_from(["va", "mercy"]), SESSIONS),
    st.floats(0, 40),
)


@given(messages=st.lists(MESSAGES, max_size=30))
def test_in_any_order_nobody_is_online_without_a_lease(messages: list[Join | SiteStatus | Leave | float]) -> None:
    members, now = Membership(), 0.0
    for message in messages:
        match message:
            case Join():
                members.joined(message, now=now)
            case SiteStatus():
                members.status(message, now=now)
            case Leave():
                members.left(message, now=now)
            case _:
                now += message
                members.expire(now=now)
        for view in members.views():
            online = view.name in members.online(now=now)
            assert online == (view.state is SiteState.ONLINE)
            assert not online or now < view.lease_until <= now + 50
            assert view.since <= now
            assert online or not view.activities
