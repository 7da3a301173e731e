from __future__ import annotations

from fedbus.bench.scale import rows


def test_every_strategy_and_number_of_sites_has_a_row() -> None:
    found = rows(sites=[2, 5], strategies=["auto", "sync"], mib=0.01, updates=20)

    assert [row["case"].split(" MiB")[0] for row in found] == [
        "auto, 2 sites, 0.01",
        "auto, 5 sites, 0.01",
        "sync, 2 sites, 0.01",
        "sync, 5 sites, 0.01",
    ]
    assert all(row["value"] > 0 for row in found)
