"""Multi-Krum from numbers: who is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.rules.robust import krum_scores, multi_krum, squared_distances
from fedbus.core.spec.sections import least_sites


def distances(points: list[tuple[float, ...]]) -> list[list[float]]:
    return squared_distances([[sum(x * y for x, y in zip(a, b, strict=True)) for b in points] for a in points])


@pytest.mark.parametrize(("f", "sites"), [(0, 3), (1, 5), (2, 7), (5, 13)])
def test_f_liars_need_two_f_plus_three_sites(f, sites):
    assert least_sites(f) == sites
    assert len(multi_krum(distances([(float(i),) for i in range(sites)]), f=f)) == sites - f
    with pytest.raises(ValueError, match=f"needs {sites} deltas, got {sites - 1}"):
        multi_krum(distances([(float(i),) for i in range(sites - 1)]), f=f)


def test_scores_are_those_of_the_paper():
    # five points on a line, f = 1: the K - f - 2 = 2 nearest others of each
    assert krum_scores(distances([(0.0,), (1.0,), (3.0,), (6.0,), (50.0,)]), f=1) == [
        1.0 + 9.0,
        1.0 + 4.0,
        4.0 + 9.0,
        9.0 + 25.0,
        44.0**2 + 47.0**2,
    ]


def test_the_paper_keeps_what_lies_close_together():
    # given five honest deltas, and two that agree with each other on something else
    honest = [(1.0, 0.0), (1.1, 0.1), (0.9, -0.1), (1.0, 0.1), (1.1, 0.0)]
    assert multi_krum(distances([honest[0], (-3.0, 0.0), *honest[1:3], (-3.0, 0.1), *honest[3:]]), f=2) == (
        0,
        2,
        3,
        5,
        6,
    )


def test_of_equal_deltas_the_first_are_kept():
    assert multi_krum(distances([(1.0, 2.0)] * 7), f=2) == (0, 1, 2, 3, 4)


def test_a_distance_is_never_negative_though_products_are_rounded():
    found = squared_distances([[1.0, 1.0 + 1e-15], [1.0 + 1e-15, 1.0]])
    assert found == [[0.0, 0.0], [0.0, 0.0]]


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=5, max_size=9),
    st.lists(st.sampled_from([1e3, -1e4, 1e9]), min_size=2, max_size=2),
    st.data(),
)
def test_two_that_are_far_away_are_never_kept(honest, far, data):
    # given f = 2 deltas far from all others and from each other
    points = [*honest, (far[0], 0.0), (0.0, 7 * far[1])]
    order = data.draw(st.permutations(range(len(points))))
    kept = multi_krum(distances([points[i] for i in order]), f=2)
    assert {order[i] for i in kept} == set(range(len(honest)))
