"""Guards by numbers: clips against others and of sites that were away."""

from __future__ import annotations

import pytest

from fedbus.core.rules.guards import clip_of_returner, clip_to_others, soft_limit


@pytest.mark.parametrize(
    ("active", "size", "limit"),
    [(12, 4, 60), (12, 1, 240), (12, 12, 20), (5, 2, 50), (1, 1, 20), (0, 1, 20)],
)
def test_soft_limit_is_twenty_times_n_over_k(active, size, limit):
    assert soft_limit(active=active, size=size) == limit


@pytest.mark.parametrize(
    ("norm", "usual", "factor", "expected"),
    [
        (100.0, 2.0, None, 1.0),  # off by default
        (8.0, 2.0, 4.0, 1.0),  # 4 times what is usual is just allowed
        (16.0, 2.0, 4.0, 0.5),
        (100.0, None, 4.0, 1.0),  # nothing is usual yet
        (100.0, 0.0, 4.0, 1.0),  # sites that have learnt all bound nobody
        (0.0, 2.0, 4.0, 1.0),
    ],
)
def test_clip_against_the_other_sites(norm, usual, factor, expected):
    assert clip_to_others(norm, usual, factor=factor) == expected


@pytest.mark.parametrize(
    ("norm", "own", "others", "expected"),
    [
        (8.3, 1.0, 2.0, 1 / 8.3),
        (0.5, 1.0, 2.0, 1.0),  # never scaled up
        (8.0, 4.0, 2.0, 0.5),  # norms of its own are better than those of others
        (8.0, None, 2.0, 0.25),
        (8.0, None, None, 1.0),
    ],
)
def test_the_delta_of_a_site_that_was_away_is_no_longer_than_its_own_median(norm, own, others, expected):
    assert clip_of_returner(norm, own, others) == expected
