from __future__ import annotations

from fedbus.aggregator.voice.announcer import UNCONFIRMED
from fedbus.bench.announcer import rows


def test_each_kind_and_window_has_a_row() -> None:
    found = rows(sites=2, messages=20)

    assert [row["case"] for row in found] == [
        f"{what}, {window} unconfirmed, 2 sites" for window in (1, UNCONFIRMED) for what in ("events", "receipts")
    ]
    assert all(row["value"] > 0 for row in found)
