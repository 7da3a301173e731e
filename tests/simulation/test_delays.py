from __future__ import annotations

import random
import statistics

import pytest

from fedbus.errors import SettingsError
from fedbus.simulation import delays_of, mean_delay


def drawn(text: str, sites: int = 12, times: int = 400) -> list[list[float]]:
    rng = random.Random(1)
    return [[delay(rng) for _ in range(times)] for delay in delays_of(text, sites, seed=0)]


def test_geometric_speeds_span_the_ratio_with_the_last_site_slowest() -> None:
    times = drawn("geometric:10", 3)

    assert [statistics.mean(site) for site in times] == pytest.approx([1.0, 10**0.5, 10.0], rel=0.02)
    assert all(0.9 * m <= t <= 1.1 * m for site, m in zip(times, (1, 10**0.5, 10), strict=True) for t in site)


def test_equal_speeds_have_no_jitter() -> None:
    assert drawn("equal", 2, 2) == [[1.0, 1.0], [1.0, 1.0]]


def test_half_normal_times_have_the_mean_of_their_distribution() -> None:
    times = [t for site in drawn("half-normal:2") for t in site]

    assert statistics.mean(times) == pytest.approx(2 * (2 / 3.14159) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("text", "bounds"), [("classes", (5, 8)), ("classes:large", (50, 80))])
def test_every_site_belongs_to_one_class(text: str, bounds: tuple[float, float]) -> None:
    classes = ((1, 2), (3, 5), bounds)

    found = [[low <= min(site) and max(site) <= high for low, high in classes] for site in drawn(text, 60)]

    assert all(sum(site) == 1 for site in found)
    assert all(any(site[k] for site in found) for k in range(3))


def test_pareto_times_are_capped() -> None:
    times = [t for site in drawn("pareto") for t in site]

    assert min(times) >= 1.0
    assert max(times) == 30.0
    assert statistics.median(times) == pytest.approx(2.0, rel=0.1)


def test_exponential_sites_differ_in_rate() -> None:
    means = [mean_delay(delay) for delay in delays_of("exponential:1.5", 12, seed=0)]

    assert max(means) > 3 * min(means)


@pytest.mark.parametrize(
    "text", ["", "fast", "geometric", "geometric:0.5", "geometric:ten", "equal:2", "classes:small"]
)
def test_an_unknown_model_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(SettingsError, match="geometric"):
        delays_of(text, 3, seed=0)
