"""Which events have a line in the aggregator's audit log, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.aggregator.audit import note
from fedbus.core.protocol import events as e
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import NOTHING, Head

UPDATE = "va:0123abcd:7"


class Lines:
    """What was noted."""

    def __init__(self) -> None:
        self.noted: list[tuple[Kind, dict[str, object]]] = []

    async def write(self, kind: Kind, **facts: object) -> Head:
        self.note(kind, **facts)
        return NOTHING

    def note(self, kind: Kind, **facts: object) -> None:
        self.noted.append((kind, facts))


@pytest.mark.parametrize(
    ("happened", "kind", "facts"),
    [
        (
            e.UpdateFolded(site="va", update=UPDATE, body_bytes=9, base_version=3, staleness=1, audit="1:ab"),
            Kind.UPDATE_FOLDED,
            {"update": UPDATE, "bytes": 9, "base_version": 3, "staleness": 1, "audit": "1:ab"},
        ),
        (
            e.UpdateRefused(site="va", update=UPDATE, reason="stale", body_bytes=9),
            Kind.UPDATE_REFUSED,
            {"update": UPDATE, "bytes": 9, "reason": "stale", "audit": ""},
        ),
        (e.SiteRevoked(site="va", since="2026-11-30"), Kind.SITE_REVOKED, {"since": "2026-11-30"}),
        (e.SiteLost(site="va", reason="silent"), Kind.SITE_LOST, {"reason": "silent"}),
        (e.SiteDeclined(site="va", reason="no"), Kind.SITE_REFUSED, {"reason": "no"}),
        (e.SiteReturned(site="va", how="is back"), Kind.SITE_JOINED, {"how": "is back"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, e.Happened) else "",
)
def test_an_event_has_its_line(happened: e.Happened, kind: Kind, facts: dict[str, Any]) -> None:
    lines = Lines()
    note(lines, "heart", happened)
    assert lines.noted == [(kind, {"job": "heart", "site": "va", **facts})]


def test_what_is_of_no_job_says_none_and_most_events_have_no_line() -> None:
    lines = Lines()
    note(lines, e.NOBODY, e.SiteLost(site="va", reason="silent"))
    note(lines, "heart", e.VersionScored(site="va", version=1))
    assert lines.noted == [(Kind.SITE_LOST, {"site": "va", "reason": "silent"})]
