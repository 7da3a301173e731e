"""Step budgets: who makes how many steps, and what unequal steps mean for the mean delta."""

from __future__ import annotations

import math

import pytest

from fedbus.core.rules.step_budget import StepBudgets, counted_steps, effective_steps, step_budget


@pytest.mark.parametrize(
    ("most", "step_s", "fastest_step_s", "expected"),
    [
        (100, 0.1, 0.1, 100),
        (100, 0.2, 0.1, 50),
        (100, 0.3, 0.1, 33),
        (100, 1.0, 0.1, 20),  # a tenth of the speed, but never less than a fifth of the steps
        (7, 100.0, 0.1, 2),  # ceil(7 / 5)
        (3, 100.0, 0.1, 1),
        (1, 100.0, 0.1, 1),
    ],
)
def test_budget_follows_speed_within_a_fifth_and_the_whole(most, step_s, fastest_step_s, expected):
    assert step_budget(most, step_s=step_s, fastest_step_s=fastest_step_s) == expected


def measured(**seconds_of_10_steps: float) -> StepBudgets:
    budgets = StepBudgets(100)
    for site, seconds in seconds_of_10_steps.items():
        budgets.measured(site, steps=10, seconds=seconds)
    return budgets


def test_the_fastest_active_site_is_the_measure():
    budgets = measured(fast=1.0, middle=2.0, slow=4.0)
    assert [budgets.budget(site, {"fast", "middle", "slow"}) for site in ("fast", "middle", "slow")] == [100, 50, 25]
    # when the fastest leaves, the others make more steps
    assert [budgets.budget(site, {"middle", "slow"}) for site in ("middle", "slow")] == [100, 50]


def test_no_budget_before_two_sites_were_measured():
    assert measured(slow=4.0).budget("slow", {"slow", "fast"}) is None
    assert measured(fast=1.0).budget("slow", {"slow", "fast"}) is None


def test_speed_is_a_running_mean_of_nine_tenths():
    budgets = measured(fast=1.0, slow=4.0)
    budgets.measured("slow", steps=10, seconds=14.0)
    # .9 * .4 + .1 * 1.4 = .5 seconds per step
    assert budgets.budget("slow", {"fast", "slow"}) == 20
    budgets.measured("slow", steps=1000, seconds=1000 * 0.1)
    assert budgets.budget("slow", {"fast", "slow"}) == round(100 * 0.1 / 0.46)


@pytest.mark.parametrize(("steps", "seconds"), [(0, 1.0), (-3, 1.0), (10, 0.0), (10, -1.0), (10, math.inf)])
def test_a_measure_that_cannot_be_changes_nothing(steps, seconds):
    budgets = measured(fast=1.0, slow=2.0)
    budgets.measured("slow", steps=steps, seconds=seconds)
    assert budgets.budget("slow", {"fast", "slow"}) == 50


@pytest.mark.parametrize(("said", "counted"), [(0, 20), (1, 20), (20, 20), (73, 73), (100, 100), (10**9, 100)])
def test_steps_that_a_budget_cannot_be_do_not_change_the_weight(said, counted):
    assert counted_steps(said, 100) == counted


def test_effective_steps_are_the_weighted_mean():
    assert effective_steps([(1.0, 20), (2.0, 50), (3.0, 100)]) == pytest.approx((20 + 100 + 300) / 6)
    assert effective_steps([(0.3, 40), (7.0, 40)]) == pytest.approx(40)
