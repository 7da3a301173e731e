"""Curves of a bounded length."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fedbus.console.curve import MOST_COLUMNS, Curve


def test_a_long_curve_keeps_its_ends_and_the_same_distance_between_points() -> None:
    curve = Curve(100)
    for version in range(10_001):
        curve.put(version, float(version), {"auc": version / 10_000})
    distances = {right - left for left, right in zip(curve.versions, curve.versions[1:-1], strict=False)}
    assert len(curve) <= 100
    assert (curve.versions[0], curve.versions[-1], distances) == (0, 10_000, {curve.stride})
    assert [round(value * 10_000) for value in curve.columns["auc"]] == list(curve.versions) == list(map(int, curve.at))


def test_a_later_score_of_the_same_version_counts_and_an_older_version_finds_its_place() -> None:
    curve = Curve()
    curve.put(2, 1.0, {"auc": 0.5, "loss": 2.0})
    curve.put(4, 2.0, {"auc": 0.6})
    curve.put(3, 3.0, {"auc": 0.7})
    curve.put(2, 4.0, {"auc": 0.8})
    assert (list(curve.versions), list(curve.columns["auc"])) == ([2, 3, 4], [0.8, 0.7, 0.6])
    assert all(map(math.isnan, curve.columns["loss"]))
    assert curve.newest("auc") == 0.6


def test_names_beyond_what_is_kept_and_versions_that_are_none_are_left_out() -> None:
    curve = Curve()
    curve.put(1, 1.0, {f"metric {number}": 1.0 for number in range(2 * MOST_COLUMNS)})
    curve.put(-1, 1.0, {"auc": 1.0})
    curve.put(2**70, 1.0, {"auc": 1.0})
    assert (len(curve.columns), list(curve.versions)) == (MOST_COLUMNS, [1])


@given(st.lists(st.tuples(st.integers(-1, 2**64) | st.integers(0, 60), st.floats()), max_size=60))
def test_whatever_comes_points_are_in_order_bounded_and_the_newest_is_there(puts: list[tuple[int, float]]) -> None:
    curve = Curve(8)
    for version, value in puts:
        curve.put(version, 0.0, {"auc": value})
    taken = [version for version, _ in puts if 0 <= version < 2**53]
    assert list(curve.versions) == sorted(set(curve.versions))
    assert len(curve) <= 8
    assert len(curve.at) == len(curve) == len(curve.columns.get("auc", curve.at))
    if taken:
        assert (curve.versions[0], curve.versions[-1]) <= (max(taken), max(taken))
        assert curve.versions[-1] == max(taken)
