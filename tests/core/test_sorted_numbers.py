"""Medians and sums that are kept as numbers change, against those of the standard library."""

from __future__ import annotations

import math
from statistics import median, median_low

from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.rules.sorted_numbers import ExactSum, SortedNumbers

SITES = ("a", "b", "c", "d", "e")
FLOATS = st.floats(0, 1e300) | st.sampled_from([0.0, 1.0, 2.0])
CHANGES = st.lists(st.tuples(st.sampled_from(SITES), st.none() | FLOATS), max_size=30)


def kept(changes: list[tuple[str, float | None]]) -> tuple[SortedNumbers[float], dict[str, float]]:
    numbers, plain = SortedNumbers[float](), {}
    for site, number in changes:
        numbers.put(site, number)
        plain.pop(site, None)
        if number is not None:
            plain[site] = number
    return numbers, plain


@given(changes=CHANGES, site=st.sampled_from((*SITES, "nobody")), least=st.integers(1, 3))
def test_medians_of_the_others_are_those_of_the_plain_list(
    changes: list[tuple[str, float | None]], site: str, least: int
) -> None:
    numbers, plain = kept(changes)
    others = [number for name, number in plain.items() if name != site]

    assert numbers.count_without(site) == len(others)
    if len(others) < least:
        assert numbers.median_without(site, least=least) is None
        assert numbers.median_low_without(site, least=least) is None
    else:
        assert numbers.median_without(site, least=least) == median(others)
        assert numbers.median_low_without(site, least=least) == median_low(others)


@given(changes=CHANGES, more=FLOATS)
def test_the_least_and_the_lower_median_with_one_more(changes: list[tuple[str, float | None]], more: float) -> None:
    numbers, plain = kept(changes)

    held = [*plain.values(), more]

    assert numbers.least_and_median_low_with(more) == (min(held), median_low(held))


@given(stay=st.lists(st.floats(0, 1e300)), leave=st.lists(st.floats(0, math.inf)))
def test_a_sum_from_which_numbers_left_has_no_trace_of_them(stay: list[float], leave: list[float]) -> None:
    total = ExactSum()
    for number in (*leave, *stay):
        total.add(number)
    for number in leave:
        total.add(number, times=-1)

    assert total.value == math.fsum(stay)


def test_a_sum_above_all_floats_is_infinite() -> None:
    total = ExactSum()
    total.add(1.5e308)
    total.add(1.5e308)
    assert total.value == math.inf
