"""Step budgets: who makes how many steps, and what unequal steps mean for the mean delta."""

from __future__ import annotations

import math

import pytest

from fedbus.core.step_budget import StepBudgets, counted_steps, fednova_normaliser, step_budget


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


def test_normaliser_gives_the_mean_of_fednova():
    # given three sites with weights, steps and deltas (one number each)
    weights, steps, deltas = [1.0, 2.0, 3.0], [20, 50, 100], [0.4, -1.0, 2.5]
    # when the sum of w / a * delta is divided by the normaliser
    total = sum(w / a * d for w, a, d in zip(weights, steps, deltas, strict=True))
    mean = total / fednova_normaliser(zip(weights, steps, strict=True))
    # then it is tau_eff times the mean of the normalised deltas
    tau = sum(w * a for w, a in zip(weights, steps, strict=True)) / sum(weights)
    expected = tau * sum(w * d / a for w, a, d in zip(weights, steps, deltas, strict=True)) / sum(weights)
    assert mean == pytest.approx(expected, rel=1e-12)


def test_equal_steps_give_the_weighted_mean():
    total = 1.0 / 40 * 3.0 + 2.0 / 40 * 6.0
    assert total / fednova_normaliser([(1.0, 40), (2.0, 40)]) == pytest.approx((3.0 + 2 * 6.0) / 3)
