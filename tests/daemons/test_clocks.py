"""Machines whose clocks differ: what one of them calls now means nothing to the others, and people are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedbus.bench.chaos import machine
from fedbus.bench.chaos.machine import Machine

PACED = {"step_delay_s": 0.05, "status_interval_s": 0.5}
Shifted = Callable[[float], AbstractContextManager[None]]


@pytest.fixture
def shifted(house: Any, tmp_path: Path) -> Shifted:
    """Daemons that are started inside have a clock that is so many seconds ahead of the broker's."""

    @contextmanager
    def ahead(seconds: float) -> Iterator[None]:
        off = Machine(tmp_path / "machine")
        off.clock_ahead_s = seconds
        house.running.under = lambda name: [machine.__name__, str(off.path), str(tmp_path / "none")]
        yield
        house.running.under = lambda name: []

    return ahead


def clock_of(house: Any, site: str) -> float:
    """By how much its clock is ahead, as soon as that is known."""
    while (ahead_s := house.site(site)["clock_ahead_s"]) is None:
        pass  # each question is a round trip to the aggregator
    return float(ahead_s)


@pytest.mark.parametrize("seconds", [30.0, 600.0, -600.0])
def test_a_job_whose_aggregator_has_another_time_than_the_broker_is_trained_and_watched(
    house: Any, shifted: Shifted, seconds: float
) -> None:
    # given an aggregator with another time than broker and sites
    with shifted(seconds):
        house.start_aggregator()
    house.start_site("cleveland", **PACED)
    job = house.submit(stop={"versions": 100_000}, snapshot_every=4)
    house.committed(6)
    # when a second site joins in the middle
    late = house.start_site("hungary", **PACED)
    # then it begins with the newest snapshot
    assert late.wait_for("version-held", job=job)["version"] >= 4
    house.aggregator.wait_for("update-folded", site="hungary")
    house.fedbus("abort", job)
    house.ended(job, state="aborted")
    assert not [event for event in late.events() if event["event"] == "resync"]
    # and who watches sees the job from its beginning
    watched = house.fedbus("watch", job).out
    assert "job-submitted" in watched
    assert "job-ended" in watched


@pytest.mark.parametrize(("seconds", "says"), [(630.0, "ahead of"), (-630.0, "behind")])
def test_people_are_told_of_a_site_whose_clock_is_wrong(
    house: Any, shifted: Shifted, seconds: float, says: str
) -> None:
    house.start_aggregator()
    house.start_site("hungary", **PACED)
    # when the clock of one of two sites is ten minutes off
    with shifted(seconds):
        house.start_site("cleveland", **PACED)
    # then the aggregator says so, once, and of nobody else
    text = house.aggregator.wait_for("site-clock", site="cleveland")["text"]
    assert says in text
    assert "10 min" in text
    assert abs(house.site("cleveland")["clock_ahead_s"] - seconds) < 5.0
    assert abs(clock_of(house, "hungary")) < 5.0
    assert "its clock is 10 min" in house.fedbus("sites").out
    assert [e["site"] for e in house.aggregator.events() if e["event"] == "site-clock"] == ["cleveland"]
