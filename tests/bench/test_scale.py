from __future__ import annotations

from fedbus.bench.scale import core_rows, rows


def test_every_strategy_and_number_of_sites_has_a_row() -> None:
    found = rows(sites=[2, 5], strategies=["auto", "sync"], mib=0.01, updates=20)

    assert [row["case"].split(" MiB")[0] for row in found] == [
        "auto, 2 sites, 0.01",
        "auto, 5 sites, 0.01",
        "sync, 2 sites, 0.01",
        "sync, 5 sites, 0.01",
    ]
    assert all(row["value"] > 0 for row in found)


def test_the_core_alone_has_a_goal() -> None:
    found = core_rows(sites=[3, 6], strategies=["auto", "sync"])

    assert [(row["case"], row["unit"], row["goal"]) for row in found] == [
        ("auto, 3 sites: core", "ms/update", 1.0),
        ("auto, 6 sites: core", "ms/update", 1.0),
        ("sync, 3 sites: core", "ms/update", 1.0),
        ("sync, 6 sites: core", "ms/update", 1.0),
    ]
