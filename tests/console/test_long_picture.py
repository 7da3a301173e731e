"""A picture of a long job of many sites: an event costs what the first ones did, and what is kept is bounded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

from fedbus.bench.long_job import long_job
from fedbus.console.curve import MOST_POINTS
from fedbus.console.picture import MOST_SAID, MOST_SITE_POINTS, MOST_STALENESS, Picture
from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event

SLICE = 1_000


def calls_of(picture: Picture, events: Sequence[Event]) -> int:
    """How many functions were called to take these in."""
    calls = 0

    def count(frame: Any, what: str, arg: Any) -> None:
        nonlocal calls
        calls += what in ("call", "c_call")

    sys.setprofile(count)
    try:
        for event in events:
            picture.take(event)
    finally:
        sys.setprofile(None)
    return calls


def test_the_hundred_thousandth_event_costs_no_more_than_the_first_ones_and_memory_is_bounded() -> None:
    picture, events = Picture(), long_job(events=100_000, sites=200)
    for event in islice(events, SLICE):
        picture.take(event)
    at_first = calls_of(picture, list(islice(events, SLICE)))
    for event in islice(events, 97 * SLICE):
        picture.take(event)
    at_last = calls_of(picture, list(events))
    assert picture.changes == 100_000
    assert at_last < 1.2 * at_first
    assert (len(picture.sites), picture.updates > 80_000, picture.version > 10_000) == (200, True, True)
    assert 500 <= len(picture.means) <= MOST_POINTS
    assert max(map(len, [*picture.scores.values(), *picture.training.values()])) <= MOST_SITE_POINTS
    assert (len(picture.said), len(picture.buffer) < 9) == (MOST_SAID, True)
    assert picture.versions.versions[-1] == picture.version
    assert round(picture.versions_per_min(picture.said[-1].at)) == round(600 / 9.5)


def test_an_aggregator_that_says_too_much_fills_no_memory() -> None:
    picture = Picture()
    for number in range(9_000):
        said = e.UpdateFolded(site="va", update=f"va:0123abcd:{number}", staleness=number, metrics={f"m{number}": 0.5})
        picture.take(e.wire_of(said, job="heart", at=1.0))
        refused = e.UpdateRefused(site="va", update="va:0123abcd:1", reason=f"{number} " * 1_000)
        picture.take(e.wire_of(refused, job="heart", at=1.0))
    assert (len(picture.buffer), len(picture.staleness)) == (4_096, MOST_STALENESS + 1)
    assert sum(picture.staleness) == 9_000 == sum(picture.refusals.times.values())
    assert len(picture.refusals.times) == 33
    assert len(picture.training["va"].columns) == 12
