"""The cosine of each site's deltas to the mean delta of the version that they make."""

from __future__ import annotations

import pytest
import torch

from fedbus.tensors.cosines import MOST_SITES, Cosines


def test_a_site_that_points_the_other_way_has_a_cosine_below_zero() -> None:
    cosines, way = Cosines(4), torch.tensor([1.0, 2.0, 0.0, -1.0])
    for site, delta in (("a", way), ("b", 3 * way), ("c", -way)):
        cosines.fold(site, delta, 0.5)
    cosines.commit(way)
    assert cosines.last == pytest.approx({"a": 1.0, "b": 1.0, "c": -1.0})


def test_several_updates_of_a_site_count_together_and_a_buffer_at_a_time() -> None:
    cosines = Cosines(2)
    cosines.fold("a", torch.tensor([1.0, 0.0]), 1.0)
    cosines.fold("a", torch.tensor([0.0, 1.0]), 1.0)
    cosines.commit(torch.tensor([1.0, 0.0]))
    assert cosines.last["a"] == pytest.approx(0.5**0.5)
    cosines.commit(torch.tensor([1.0, 0.0]))
    assert cosines.last == {}


def test_of_a_large_model_a_sample_says_about_the_same() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(2_000_000), torch.randn(2_000_000)
    cosines = Cosines(2_000_000)
    cosines.fold("a", one + other, 1.0)
    cosines.commit(one)
    assert cosines.last["a"] == pytest.approx(0.5**0.5, abs=0.05)


def test_what_is_nothing_has_none_and_what_is_held_is_bounded() -> None:
    cosines = Cosines(2)
    for number in range(2 * MOST_SITES):
        cosines.fold(f"s{number}", torch.ones(2) * (number > 0), 1.0)
    cosines.commit(torch.ones(2))
    assert len(cosines.last) == MOST_SITES - 1
