"""`fedbus bench soak` in its short form: ten sites for a few seconds."""

from __future__ import annotations

import pytest

from fedbus.bench.figures import Row
from fedbus.bench.soak import SoakPlan, rows

PLAN = SoakPlan(sites=10, seconds=6.0, processes=2, mib=0.25, train_s=0.4)


@pytest.fixture(scope="module")
def figures() -> dict[str, Row]:
    """Rows by what stands after the first colon."""
    return {row["case"].partition(": ")[2]: row for row in rows(PLAN)}


def test_ten_sites_have_their_updates_folded(figures: dict[str, Row]) -> None:
    assert figures["updates folded per second, steady"]["value"] > 0
    assert figures["versions committed"]["value"] > 0
    assert any(case.startswith("update published → folded, median of") for case in figures)


def test_nothing_that_was_confirmed_is_lost_and_no_site_that_lives(figures: dict[str, Row]) -> None:
    assert figures["updates confirmed to their sites"]["value"] > 10
    assert figures["confirmed and neither folded nor refused"]["met"]
    assert figures["sites that lived and were lost"]["met"]


@pytest.mark.parametrize("group", ["aggregator", "sites", "RabbitMQ"])
def test_memory_and_processor_of_every_group_are_there(figures: dict[str, Row], group: str) -> None:
    for what in ("memory of {}, start", "memory of {}, end", "cores that {} kept busy", "CPU of {} per update folded"):
        assert figures[what.format(group)]["value"] > 0
