"""How sure a site is of its metrics: against what is known of means, and what may not leave."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from fedbus.core.protocol.spread import HIGH, LEVELS, LOW, check_spread
from fedbus.training.cases import Cases
from fedbus.training.intervals import (
    DRAWS,
    MOST_S,
    Intervals,
    Measured,
    expanded_levels,
    student_quantile,
)

Values = NDArray[np.float64]
RNG = np.random.default_rng(7)


def measured(**cases: Values) -> Measured:
    metrics = {name: float(np.nanmean(values)) for name, values in cases.items()}
    return Measured(metrics=metrics, cases=Cases(count=len(next(iter(cases.values()))), values=cases))


@pytest.mark.parametrize(
    ("degrees", "level", "known"),
    [(1, 0.975, 12.706), (2, 0.975, 4.303), (4, 0.975, 2.776), (9, 0.995, 3.250), (35, 0.975, 2.030), (9, 0.5, 0.0)],
)
def test_quantiles_of_students_t_are_those_of_the_tables(degrees: int, level: float, known: float) -> None:
    assert student_quantile(level, degrees) == pytest.approx(known, rel=3e-3, abs=1e-12)
    assert student_quantile(1 - level, degrees) == pytest.approx(-known, rel=3e-3, abs=1e-12)


def test_expanded_levels_rise_and_come_to_the_levels_themselves_with_many_cases() -> None:
    few = expanded_levels(5)
    assert few == sorted(few)
    assert few[LOW] < LEVELS[LOW]
    assert few[HIGH] > LEVELS[HIGH]
    assert expanded_levels(100_000) == pytest.approx(LEVELS, abs=1e-4)


@pytest.mark.parametrize("cases", [36, 400])
def test_the_interval_of_a_mean_is_that_of_students_t(cases: int) -> None:
    values = RNG.normal(0.7, 0.1, cases)
    spread = Intervals().of(measured(dice=values)).spreads["dice"]
    half = student_quantile(0.975, cases - 1) * values.std(ddof=1) / math.sqrt(cases)
    assert spread.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert (spread.cases, spread.draws) == (cases, DRAWS)
    check_spread(spread)


def test_only_cases_with_a_value_count() -> None:
    values = np.concatenate([RNG.normal(0.7, 0.1, 50), np.full(50, np.nan)])
    spreads = Intervals().of(measured(dice=values, other=np.arange(100.0))).spreads
    assert spreads["dice"].cases == 50
    half = student_quantile(0.975, 49) * np.nanstd(values, ddof=1) / math.sqrt(50)
    low, high = spreads["dice"].interval or (0.0, 0.0)
    assert high - low == pytest.approx(2 * half, rel=0.15)


def test_what_is_paired_is_surer_than_what_is_not() -> None:
    hard = RNG.normal(0.7, 0.2, 60)
    better = hard + RNG.normal(0.05, 0.02, 60)
    intervals = Intervals()
    assert not intervals.of(measured(dice=hard), model=0, against=0).differences
    second = intervals.of(measured(dice=better), model=1, against=0)
    low, high = second.differences["dice"].interval or (0.0, 0.0)
    alone = second.spreads["dice"].interval or (0.0, 0.0)
    assert 0 < low < second.differences["dice"].value < high
    assert high - low < 0.3 * (alone[1] - alone[0])


def test_a_model_compared_to_itself_differs_by_nothing() -> None:
    intervals, values = Intervals(), RNG.normal(0.7, 0.2, 60)
    intervals.of(measured(dice=values), model=0, against=0)
    spread = intervals.of(measured(dice=values), model=1, against=0).differences["dice"]
    assert (spread.value, spread.interval) == (0.0, (0.0, 0.0))


def test_without_the_other_model_or_with_another_test_set_nothing_is_compared() -> None:
    intervals = Intervals()
    assert not intervals.of(measured(dice=RNG.random(20)), model=1, against=0).differences
    intervals.of(measured(dice=RNG.random(20)), model=0, against=0)
    other = intervals.of(measured(dice=RNG.random(21)), model=1, against=0)
    assert not other.differences
    assert other.notes == ("21 test cases, 20 before: no paired difference",)


@pytest.mark.parametrize("values", [np.array([0.5, 0.7, 0.9, 0.2]), np.array([0.5, 0.1, 0.2, 0.3] + [np.nan] * 30)])
def test_of_few_cases_nothing_leaves_but_the_mean(values: Values) -> None:
    spread = Intervals().of(measured(dice=values, other=np.arange(float(len(values))))).spreads.get("dice")
    assert spread is None or (spread.cases, spread.draws, spread.quantiles) == (0, 0, ())


def test_a_site_may_say_less() -> None:
    spread = Intervals(fewest=30).of(measured(dice=RNG.random(29), other=RNG.random(29))).spreads
    assert not spread


def test_what_is_the_same_for_all_cases_looks_certain_and_has_no_interval() -> None:
    assert Intervals().of(measured(accuracy=np.ones(36))).spreads["accuracy"].interval is None


def test_no_quantile_is_a_mean_of_some_cases() -> None:
    """Of five values known draws could be solved for: with blurred ones no sum of counts fits."""
    values = np.array([0.0, 1.0, 10.0, 100.0, 1000.0])
    spread = Intervals().of(measured(dice=values)).spreads["dice"]
    whole = [abs(5 * q - round(5 * q)) < 1e-6 for q in spread.quantiles]
    assert not any(whole)
    assert values.min() <= spread.quantiles[0] < spread.quantiles[-1] <= values.max()


def test_a_metric_that_is_no_mean_is_measured_anew_on_each_draw() -> None:
    values = RNG.normal(0.7, 0.2, 80)
    cases = Cases(count=80, resample=lambda rows: {"median": float(np.median(values[rows])), "own": math.nan})
    spreads = Intervals().of(Measured(metrics={"median": float(np.median(values))}, cases=cases)).spreads
    half = 1.2533 * NormalDist().inv_cdf(0.975) * values.std() / math.sqrt(80)
    low, high = spreads["median"].interval or (0.0, 0.0)
    assert high - low == pytest.approx(2 * half, rel=0.5)
    assert set(spreads) == {"median"}


def test_a_function_of_the_tasks_that_fails_costs_its_own_intervals_only() -> None:
    one = measured(dice=RNG.random(20))

    def fails(rows: object) -> dict[str, float]:
        raise ValueError("row 7 of Mustermann")

    cases = Cases(count=20, values=one.cases.values, resample=fails)
    sure = Intervals().of(Measured(metrics={**one.metrics, "auc": 0.5}, cases=cases))
    assert set(sure.spreads) == {"dice"}
    assert len(sure.notes) == 1


def test_when_time_is_over_fewer_draws_are_made_and_said() -> None:
    ticks = iter(range(10**6))
    sure = Intervals(clock=lambda: MOST_S / 10 * next(ticks)).of(measured(dice=RNG.random(20)))
    assert 0 < sure.spreads["dice"].draws < DRAWS
    assert "draws were made" in sure.notes[0]


def test_numbers_too_large_to_add_up_have_no_quantiles() -> None:
    spread = Intervals().of(measured(loss=RNG.random(20) * 1e200)).spreads["loss"]
    assert not spread.quantiles
    check_spread(spread)
