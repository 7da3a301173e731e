"""The roster: what the aggregator learns of who is enrolled and who is out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fedbus.errors import TrustError
from fedbus.trust.roster import Roster

WHOLE = Roster(
    federation="hearts", numbers={"site-b": 1, "site-a": 0}, revoked={"site-b": datetime(2026, 3, 1, tzinfo=UTC)}
)


def test_a_roster_reads_like_it_was_written(tmp_path):
    (tmp_path / "roster.json").write_text(WHOLE.text())
    assert Roster.load(tmp_path) == WHOLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"federation": "hearts"}',
        '{"federation": "hearts", "sites": {"Site A": {"number": 0, "revoked": null}}}',
        '{"federation": "hearts", "sites": {"a": {"number": null, "revoked": null}}}',
        '{"federation": "hearts", "sites": {"a": {"number": 0, "revoked": "yes"}}}',
        '{"federation": "hearts", "sites": {"a": {"number": 0, "revoked": "2026-03-01T00:00:00"}}}',
        '{"federation": "hearts", "sites": {"a": {"number": 0, "revoked": null}, "b": {"number": 0, "revoked": null}}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_roster_is_refused(tmp_path, text):
    (tmp_path / "roster.json").write_text(text)
    with pytest.raises(TrustError, match="roster"):
        Roster.load(tmp_path)


def test_a_missing_or_huge_roster_is_refused(tmp_path):
    with pytest.raises(TrustError, match="cannot be read"):
        Roster.load(tmp_path)
    (tmp_path / "roster.json").write_text(" " * 2_000_000)
    with pytest.raises(TrustError, match="larger"):
        Roster.load(tmp_path)
