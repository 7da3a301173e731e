"""What `fedbus bench transport` reads out of the daemons' log lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fedbus.bench.transport import transfer_times


@dataclass
class FakeDaemon:
    name: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        return self.lines


def at(seconds: float, event: str, **facts: object) -> dict[str, Any]:
    return {"timestamp": f"2026-01-01T00:00:{seconds:09.6f}Z", "event": event, **facts}


def test_a_sample_runs_from_publishing_at_one_site_to_holding_at_the_other() -> None:
    # given an update of site-a that became version 1, and one of site-b that became version 2
    aggregator = FakeDaemon("aggregator")
    aggregator.lines = [
        at(1.3, "version-committed", version=1, updates=["site-a:0:1"]),
        at(2.5, "version-committed", version=2, updates=["site-b:0:1"]),
    ]
    site_a = FakeDaemon("site-a", [at(1.0, "update-publishing", update="site-a:0:1")])
    site_b = FakeDaemon("site-b", [at(2.0, "update-publishing", update="site-b:0:1")])
    site_a.lines += [at(1.45, "version-held", version=1), at(2.75, "version-held", version=2)]
    site_b.lines += [at(1.5, "version-held", version=1), at(2.6, "version-held", version=2)]
    # when the times are taken
    samples = list(transfer_times(aggregator, [site_a, site_b]))
    # then the sender's own holding does not count
    assert samples == pytest.approx([0.5, 0.75])


def test_a_version_that_the_other_site_never_held_is_no_sample() -> None:
    aggregator = FakeDaemon("aggregator", [at(1.3, "version-committed", version=1, updates=["site-a:0:1"])])
    site_a = FakeDaemon("site-a", [at(1.0, "update-publishing", update="site-a:0:1")])
    site_b = FakeDaemon("site-b")
    assert list(transfer_times(aggregator, [site_a, site_b])) == []
