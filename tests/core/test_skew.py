"""How far a site's clock is off: the status that travelled least says it."""

from __future__ import annotations

import pytest

from fedbus.core.job.skew import ENOUGH, RECENT, Skew


def after(*said: tuple[float, float]) -> Skew:
    """After statuses said at one clock and come at another."""
    skew = Skew()
    for said_at, came_at in said:
        skew = skew.after(said_at, now=came_at)
    return skew


def test_nothing_is_known_from_the_first_words() -> None:
    assert after((900.0, 1000.0), (910.0, 1010.0)).ahead_s is None


def test_a_status_that_waited_somewhere_does_not_make_a_clock_wrong() -> None:
    skew = after((1000.0, 1055.0), (1010.0, 1055.0), (1050.0, 1055.5), (1060.0, 1060.1))
    assert skew.ahead_s == pytest.approx(-0.1)
    assert skew.much_s is None


def test_statuses_that_waited_together_say_nothing() -> None:
    waited = [(1000.0 + 0.5 * i, 1010.0 + 0.01 * i) for i in range(5)]
    assert after(*waited).ahead_s is None
    assert after(*waited, (1012.4, 1012.5)).much_s is None


@pytest.mark.parametrize("off", [600.0, -600.0])
def test_a_clock_that_is_off_is_measured(off: float) -> None:
    skew = after(*((1000.0 + s + off, 1000.0 + s + 0.2) for s in range(ENOUGH)))
    assert skew.much_s == pytest.approx(off - 0.2)


def test_a_clock_that_was_set_right_is_right_again() -> None:
    wrong = [(1600.0 + s, 1000.0 + s) for s in range(5)]
    right = [(1010.0 + s, 1010.0 + s) for s in range(RECENT)]
    assert after(*wrong).much_s == pytest.approx(600.0)
    assert after(*wrong, *right).much_s is None


@pytest.mark.parametrize("said_at", [0.0, -1.0, 1e300])
def test_a_time_that_none_is_changes_nothing(said_at: float) -> None:
    assert after(*[(said_at, 1000.0)] * RECENT) == Skew()
