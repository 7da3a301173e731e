"""What `fedbus bench memory` sends and reads, without a federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fedbus.bench.memory import phases, shared_out


@dataclass
class LoggedLines:
    name: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        return self.lines


def at(seconds: float, event: str, **facts: object) -> dict[str, Any]:
    return {"timestamp": f"2026-01-01T00:00:{seconds:09.6f}Z", "event": event, **facts}


@pytest.mark.parametrize("senders", [1, 2, 3, 40, 60])
def test_a_backlog_is_shared_out_evenly_under_ids_of_its_own(senders: int) -> None:
    names = [f"sender-{n}" for n in range(senders)]
    shares = shared_out(50, names)
    ids = [str(update_id) for share in shares.values() for update_id in share]
    assert len(set(ids)) == len(ids) == 50
    assert max(map(len, shares.values())) - min(map(len, shares.values())) <= 1
    assert all(update_id.site == sender for sender, share in shares.items() for update_id in share)


def test_phases_are_read_from_the_log_lines_of_aggregator_and_site() -> None:
    # given a job of one version
    aggregator = LoggedLines(
        "aggregator",
        [
            at(1, "job-submitted"),
            at(4, "job-running"),
            at(7, "version-committed", publish_s=0.5),
            at(9, "job-ended"),
        ],
    )
    site = LoggedLines(
        "site-a",
        [
            at(3, "update-published", publish_s=0.7),
            at(5, "version-held", version=0),
            at(6, "update-published", publish_s=0.2),
        ],
    )
    # when
    found = [figure["value"] for figure in phases("1 MiB", aggregator, site)]
    # then: in the model log, at the site, initial params, update, version, all of it
    assert found == [3, 4, 0.7, 0.2, 0.5, 8]
