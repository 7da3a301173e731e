"""The schedule of a chaos run: it follows from the seed, spares who suffers already, and heals in time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fedbus.bench.chaos.plan import (
    AGGREGATOR,
    BROKER,
    HABITS,
    MISCHIEF,
    ON_CLOCK,
    ON_NODE,
    Act,
    burden,
    schedule,
    victims,
)

SITES = ("ucsf", "mercy", "hungary")


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another_one() -> None:
    assert schedule(7, SITES, within_s=60) == schedule(7, SITES, within_s=60)
    assert schedule(7, SITES, within_s=60) != schedule(8, SITES, within_s=60)


@pytest.mark.parametrize("seed", range(20))
def test_deeds_come_in_order_on_fitting_victims_and_heal_in_time(seed: int) -> None:
    deeds = schedule(seed, SITES, within_s=60)
    assert [deed.at_s for deed in deeds] == sorted(deed.at_s for deed in deeds)
    for deed in deeds:
        assert deed.victim in victims(deed.act, SITES)
        assert deed.at_s + deed.for_s <= 60
        low, high = HABITS[deed.act].lasts_s
        assert low <= deed.for_s <= high


@pytest.mark.parametrize("seed", range(20))
def test_nobody_suffers_anew_before_the_last_deed_has_healed_and_there_was_peace(seed: int) -> None:
    deeds = schedule(seed, SITES, within_s=120)
    for name in {burden(deed.act, deed.victim) for deed in deeds}:
        for deed, following in pairwise(d for d in deeds if burden(d.act, d.victim) == name):
            assert following.at_s >= deed.at_s + deed.for_s + HABITS[deed.act].peace_s


@pytest.mark.parametrize("seed", range(20))
def test_a_victim_bears_one_thing_at_a_time_but_for_what_goes_on_beside_it(seed: int) -> None:
    beside = {*MISCHIEF, *ON_CLOCK, Act.FILL_LOG}
    for deed in schedule(seed, SITES, within_s=120):
        assert burden(deed.act, deed.victim) == deed.victim or deed.act in beside
    assert burden(Act.CLOCK_AHEAD, AGGREGATOR) == AGGREGATOR


@pytest.mark.parametrize("seed", range(1, 21))
def test_in_two_minutes_every_act_comes_up(seed: int) -> None:
    assert {deed.act for deed in schedule(seed, SITES, within_s=120)} == set(Act) - set(ON_NODE)


@pytest.mark.parametrize("seed", range(1, 11))
def test_of_a_cluster_one_node_suffers_at_a_time(seed: int) -> None:
    nodes = ("node-1", "node-2", "node-3")
    deeds = [d for d in schedule(seed, SITES, within_s=400, nodes=nodes) if burden(d.act, d.victim) == BROKER]

    assert {deed.act for deed in deeds} == {Act.KILL_BROKER, *ON_NODE}
    for deed, following in pairwise(deeds):
        assert following.at_s >= deed.at_s + deed.for_s + HABITS[deed.act].peace_s
