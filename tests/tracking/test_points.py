"""From events to points: the same events give the same points, one a name and version."""

from __future__ import annotations

from collections import Counter

from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event
from fedbus.tracking.points import Curves, Point

JOB = "heart-1"


def wire(*happened: e.Happened) -> list[Event]:
    return [e.wire_of(one, job=JOB, at=100.0 + at) for at, one in enumerate(happened)]


def folded(site: str, update: int, **facts: object) -> e.UpdateFolded:
    return e.UpdateFolded(site=site, update=f"{site}:00000000:{update}", metrics={"train_loss": 1.0}, **facts)  # type: ignore[arg-type]


def scored(site: str, version: int, auc: float, mean: float) -> e.VersionScored:
    return e.VersionScored(site=site, version=version, metrics={"auc": auc}, means={"auc": mean})


EVENTS = wire(
    folded("mercy", 1, staleness=0, body_bytes=10),
    folded("mercy", 2, staleness=2, body_bytes=30),
    folded("ucsf", 1, staleness=1),
    e.VersionCommitted(version=1, updates=("mercy:00000000:1", "mercy:00000000:2", "ucsf:00000000:1"), publish_s=0.5),
    scored("mercy", 1, 0.7, 0.7),
    scored("ucsf", 1, 0.9, 0.8),
    scored("mercy", 2, 0.71, 0.81),
    scored("ucsf", 1, float("nan"), 0.8),
    e.JobEnded(state="finished"),
)


def points(events: list[Event]) -> list[Point]:
    curves = Curves()
    return [point for event in events for point in curves.after(event)]


def test_a_version_has_a_point_of_each_site_and_of_the_mean_as_it_was_at_last() -> None:
    found = {point.key: point.value for point in points(EVENTS)}
    assert found["score/auc/mercy", 1] == 0.7
    assert found["score/auc/ucsf", 1] == 0.9
    assert found["score/auc/mean", 1] == 0.8
    assert found["score/auc/mean", 2] == 0.81
    assert found["site/mercy/staleness", 1] == 1.0
    assert found["site/mercy/updates", 1] == 2
    assert found["site/mercy/body_bytes", 1] == 40
    assert found["site/ucsf/train_loss", 1] == 1.0
    assert found["version/publish_s", 1] == 0.5
    assert max(Counter(point.key for point in points(EVENTS)).values()) == 1


def test_the_same_events_give_the_same_points_and_garbage_gives_none() -> None:
    odd = Event(at=0.0, job=JOB, site="x", kind="version-committed", text="", facts={"version": "many"})
    assert points([odd, *EVENTS, odd]) == points(EVENTS)
    curves = Curves()
    for event in EVENTS:
        assert curves.ended is None
        list(curves.after(event))
    assert curves.ended == "finished"
