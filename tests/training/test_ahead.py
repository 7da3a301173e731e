"""What is made ahead comes in order, and the maker ends with its context."""

from __future__ import annotations

import itertools
import threading

import pytest

from fedbus.training.ahead import Ahead


def test_results_come_in_order_and_at_most_so_many_are_made_ahead() -> None:
    made: list[int] = []
    numbers = itertools.count()
    enough = threading.Event()

    def make() -> int:
        made.append(next(numbers))
        if len(made) >= 4:
            enough.set()
        return made[-1]

    with Ahead(make, most=3) as ahead:
        assert enough.wait(30)  # three wait, the fourth is made and finds no room
        assert ahead.next() == 0
        assert ahead.next() == 1

    assert len(made) <= 7
    assert not [thread for thread in threading.enumerate() if thread.name == "fedbus-ahead"]


def test_an_error_is_raised_in_its_turn() -> None:
    def make() -> int:
        if next(numbers) == 1:
            raise ValueError("the second")
        return 7

    numbers = itertools.count()
    with Ahead(make, most=2) as ahead:
        assert ahead.next() == 7
        with pytest.raises(ValueError, match="the second"):
            ahead.next()


def test_an_exit_of_the_maker_is_raised_and_leaves_nobody_waiting() -> None:
    def make() -> int:
        raise SystemExit(3)

    with Ahead(make, most=1) as ahead, pytest.raises(SystemExit):
        ahead.next()


def test_leaving_with_an_error_ends_a_maker_that_waits_for_room() -> None:
    with pytest.raises(KeyError), Ahead(lambda: 1, most=1):
        raise KeyError
