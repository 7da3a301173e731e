"""Events as they stand on the bus: kinds, sentences and facts stay as they are, for people and programs go by them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol import events as e
from fedbus.core.protocol import wire
from fedbus.core.protocol.messages import Event

UPDATE = "va:0123abcd:7"
FOLDED = e.UpdateFolded(
    site="va",
    update=UPDATE,
    base_version=3,
    staleness=2,
    weight=0.25,
    clip=0.5,
    norm=1.5,
    num_examples=30,
    body_bytes=99,
    train_s=1.5,
    data_wait_s=0.25,
    metrics={"loss": 0.5},
    before_clip=0.5,
    rebased=True,
)
OF_FOLDED = {
    "update": UPDATE,
    "base_version": 3,
    "staleness": 2,
    "weight": 0.25,
    "clip": 0.5,
    "norm": 1.5,
    "num_examples": 30,
    "body_bytes": 99,
    "train_s": 1.5,
    "data_wait_s": 0.25,
    "metrics": {"loss": 0.5},
}
COMMITTED = e.VersionCommitted(
    version=4, updates=(UPDATE,), reason="1 update", excluded=("ucsf",), body_bytes=9, publish_s=0.5, interval_s=2.0
)
OF_COMMITTED = {
    "version": 4,
    "updates": [UPDATE],
    "reason": "1 update",
    "excluded": ["ucsf"],
    "body_bytes": 9,
    "publish_s": 0.5,
    "interval_s": 2.0,
    "step": 0.0,
}
SCORED = e.VersionScored(
    site="va", version=4, metrics={"auc": 0.75}, num_examples=9, means={"auc": 0.7}, not_finite=("loss",)
)
OF_SCORED = {"version": 4, "metrics": {"auc": 0.75}, "num_examples": 9, "means": {"auc": 0.7}, "not_finite": ["loss"]}
AGAIN = "something went wrong in the aggregator: OSError; the job is taken up again in 2 s"
BLOCKED = (
    "the broker took no messages for 9 s: memory or disk alarm (see `fedbus broker status`, or rabbitmqctl status"
    " there)"
)
CLOCK = "va: its clock is 40 s ahead of the aggregator's; only times in logs and lists suffer from it"
RULE = {"version": 3, "rule": "calibrated", "reason": "va is slow"}
ON_THE_BUS: list[tuple[e.Happened, str, str, dict[str, Any]]] = [
    (e.JobSubmitted(login="ana", task="digits"), "job-submitted", "ana submitted task digits", {}),
    (e.JobWaiting(what="waiting for 1 more update"), "job-waiting", "waiting for 1 more update", {}),
    (e.JobWaiting(site="va", what="va makes the initial params"), "job-waiting", "va makes the initial params", {}),
    (e.JobRunning(sites=("ucsf", "va")), "job-running", "training begins with ucsf, va", {"sites": ["ucsf", "va"]}),
    (
        e.JobContinues(version=4, away="3 s", redone="1 version published again"),
        "job-continues",
        "continues at version 4 after 3 s without an aggregator; 1 version published again",
        {},
    ),
    (e.JobTrouble(reason="OSError", retry_s=2.0), "job-trouble", AGAIN, {}),
    (e.JobContinues(away="3 s"), "job-continues", "continues after 3 s without an aggregator", {}),
    (e.JobTrouble(reason="the best cannot be shown"), "job-trouble", "the best cannot be shown", {}),
    (e.JobFinishing(reason="asked", comes="nothing"), "job-finishing", "asked; nothing", {}),
    (
        e.ScoreFailed(site="va", version=1, what="a.safetensors", reason="no data"),
        "score-failed",
        "va could not score a.safetensors: no data",
        {"version": 1},
    ),
    (
        e.VersionScored(site="va", version=1, what="a.safetensors"),
        "version-scored",
        "va scored a.safetensors: no metric",
        {"version": 1, "metrics": {}, "num_examples": 0, "means": {}, "not_finite": []},
    ),
    (
        e.JobPaused(why="1 of 2 sites is there"),
        "job-paused",
        "paused: 1 of 2 sites is there; updates that come wait, nothing is lost",
        {},
    ),
    (e.JobResumed(there=("ucsf", "va")), "job-resumed", "goes on: ucsf, va are there", {}),
    (
        e.JobFinishing(version=9, reason="9 versions", comes="every site scores version 9"),
        "job-finishing",
        "9 versions; every site scores version 9",
        {"version": 9},
    ),
    (
        e.JobEnded(state="finished", reason="9 versions", result={"version": 9}),
        "job-ended",
        "finished: 9 versions",
        {"state": "finished", "result": {"version": 9}},
    ),
    (
        e.JobEnded(state="finished", reason="9 versions", result={"follow_up": "cross-site-0"}),
        "job-ended",
        "finished: 9 versions; job cross-site-0 follows",
        {"state": "finished", "result": {"follow_up": "cross-site-0"}},
    ),
    (e.SiteJoined(site="va", device="cpu", release="0.1.0"), "site-joined", "va joined (cpu, fedbus 0.1.0)", {}),
    (e.SiteReturned(site="va", how="is back after 3 s"), "site-returned", "va is back after 3 s", {}),
    (e.SiteLeft(site="va", reason="stopped"), "site-left", "va left: stopped", {}),
    (e.SiteLost(site="va", reason="its lease ran out"), "site-lost", "va is lost: its lease ran out", {}),
    (
        e.SiteRevoked(site="va", since="2026-11-30T08:00:00+00:00"),
        "site-revoked",
        "va is put out: its certificate was revoked at 2026-11-30T08:00:00+00:00; others go on without it",
        {"since": "2026-11-30T08:00:00+00:00"},
    ),
    (
        e.RevocationListOld(ends="2026-12-30T08:00:00+00:00"),
        "revocation-list-old",
        "the federation's revocation list ends on 2026-12-30T08:00:00+00:00: after that no connection is taken; every "
        "`fedbus provision` command that changes something renews it",
        {"ends": "2026-12-30T08:00:00+00:00", "over": False},
    ),
    (e.SiteAccepted(site="va"), "site-accepted", "va takes part", {}),
    (e.SiteDeclined(site="va", reason="no task"), "site-declined", "va declined: no task", {}),
    (
        e.LabelsCame(site="va", labels=3, version=7),
        "labels-came",
        "va has 3 new labels at version 7",
        {"labels": 3, "version": 7},
    ),
    (e.SiteLimited(site="va", what="va says too much"), "site-limited", "va says too much", {}),
    (e.SiteLimited(site="va", what="too much", messages=7), "site-limited", "too much", {"messages": 7}),
    (
        e.SiteAuditDiffers(site="va", known=f"9:{'a' * 64}", came=f"2:{'b' * 64}"),
        "site-audit-differs",
        "va: its audit log was cut, rewritten or begun anew: it was at 9:aaaaaaaa, now it says 2:bbbbbbbb; "
        "`fedbus audit verify` there says more",
        {"known": f"9:{'a' * 64}", "came": f"2:{'b' * 64}"},
    ),
    (e.SiteResync(site="va", reason="digest"), "site-resync", "va asks for a snapshot: digest", {}),
    (e.SiteClock(site="va", off="40 s ahead of"), "site-clock", CLOCK, {}),
    (
        e.TrainerTrouble(site="va", error="killed", restarts=2),
        "trainer-trouble",
        "va: killed; it tries again",
        {"restarts": 2, "fatal": False},
    ),
    (
        e.TrainerTrouble(site="va", error="no data", restarts=3, fatal=True),
        "trainer-trouble",
        "va: no data; the site gives up",
        {"restarts": 3, "fatal": True},
    ),
    (
        e.SiteInfluence(site="va", influence=0.05, share=0.2),
        "site-influence",
        "va counts 0.25 times as much as it should: 5.0% of what the last versions apply is from it, its share is "
        "20.0%; do its updates come seldom, late, or much cut? strategy: auto or calibrated makes up for speed",
        {"influence": 0.05, "share": 0.2},
    ),
    (e.SiteStandsOut(site="va", remark="va: long updates"), "site-stands-out", "va: long updates", {}),
    (
        e.DataSaid(site="va", examples=1200),
        "data-said",
        "va said statistics of its data, about 1,200 examples",
        {"examples": 1200},
    ),
    (e.DataSaid(site="va"), "data-said", "va has no statistics to give", {}),
    (
        e.DataSaid(site="va", reason="OSError"),
        "data-said",
        "va could not say statistics of its data: OSError",
        {},
    ),
    (
        e.DataSuspect(site="va", severity="fault", what="labels begin at 1"),
        "data-suspect",
        "fault: labels begin at 1",
        {"severity": "fault"},
    ),
    (
        e.BrokerBack(away="9 s"),
        "broker-back",
        "the broker could not be reached for 9 s; what waited there comes now",
        {},
    ),
    (e.BrokerUnblocked(blocked="9 s"), "broker-unblocked", BLOCKED, {}),
    (e.DiskHasRoom(what="the disk was full for 9 s"), "disk-has-room", "the disk was full for 9 s", {}),
    (e.UploadDropped(site="va", what="va: too late"), "upload-dropped", "va: too late", {}),
    (
        FOLDED,
        "update-folded",
        "va: staleness 2, weight 0.5, clipped to 0.5 of its length, told to rebase",
        OF_FOLDED,
    ),
    (
        e.UpdateRefused(site="va", update=UPDATE, reason="too many"),
        "update-refused",
        f"va: update {UPDATE} refused: too many",
        {"update": UPDATE, "reason": "too many"},
    ),
    (
        e.UpdateRefused(site="va", update=UPDATE, reason="late", initial=True),
        "update-refused",
        "initial params of va refused: late",
        {"update": UPDATE, "reason": "late"},
    ),
    (COMMITTED, "version-committed", "version 4 from 1 updates: 1 update; not believed: ucsf", OF_COMMITTED),
    (SCORED, "version-scored", "va scored version 4: auc 0.750, loss is not finite", OF_SCORED),
    (
        e.ScoreNotFinite(site="va", version=4, names=("loss",)),
        "score-not-finite",
        "version 4 scores NaN or infinity at va: loss",
        {"version": 4},
    ),
    (
        e.ScoreFailed(site="va", version=4, reason="no test data"),
        "score-failed",
        "va could not score version 4: no test data",
        {"version": 4},
    ),
    (
        e.RuleChosen(version=3, rule="calibrated", reason="va is slow"),
        "rule-chosen",
        "calibrated from version 3 on: va is slow",
        RULE,
    ),
]


def test_every_kind_stands_in_the_table() -> None:
    assert {type(event) for event, _, _, _ in ON_THE_BUS} == set(e.BY_KIND.values())
    assert set(e.BY_KIND.values()) >= e.INCIDENTS


@pytest.mark.parametrize(("event", "kind", "text", "facts"), ON_THE_BUS, ids=lambda value: str(value)[:40])
def test_an_event_stands_on_the_bus_as_ever(event: e.Happened, kind: str, text: str, facts: dict[str, Any]) -> None:
    said = e.wire_of(event, job="heart", at=1.5)
    assert said == Event(at=1.5, job="heart", site=event.site, kind=kind, text=text, facts=facts)
    assert list(said.facts) == list(facts)


@pytest.mark.parametrize("event", [event for event, _, _, _ in ON_THE_BUS], ids=lambda event: event.kind)
def test_an_event_that_was_read_says_and_knows_what_its_maker_said(event: e.Happened) -> None:
    said = e.wire_of(event, job="heart", at=1.5)
    received = wire.decode("event", {"schema": wire.SCHEMA}, wire.encode(said).body)
    assert isinstance(received, Event)
    read = e.event_of(received)
    assert type(read) is type(event)
    assert (read.site, read.text, read.facts) == (event.site, event.text, event.facts)


def test_what_another_release_says_besides_is_ignored_and_what_it_does_not_say_has_a_default() -> None:
    said = Event(at=0.0, job="h", site="-", kind="version-committed", text="so", facts={"version": 3, "colour": "blue"})
    assert e.event_of(said) == e.VersionCommitted(version=3, told="so")


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("job-painted", {}),
        ("version-committed", {}),
        ("version-committed", {"version": "newest"}),
        ("update-folded", {"update": None}),
        ("job-ended", {"state": "finished", "result": 7}),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_unknown_and_keeps_its_sentence(kind: str, facts: dict[str, Any]) -> None:
    read = e.event_of(Event(at=0.0, job="heart", site="va", kind=kind, text="something", facts=facts))
    assert read == e.Unknown(site="va", told="something")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({name for _, _, _, facts in ON_THE_BUS for name in facts} | {"site", "told", "login", "kind"})


@given(
    kind=st.sampled_from(sorted(e.BY_KIND)) | st.text(max_size=12),
    facts=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6),
)
def test_whatever_an_event_says_it_can_be_read(kind: str, facts: dict[str, Any]) -> None:
    read = e.event_of(Event(at=0.0, job="heart", site="va", kind=kind, text="said", facts=facts))
    assert (read.site, read.text) == ("va", "said")
    json.dumps(read.facts)
