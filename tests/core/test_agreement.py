"""Which model a job trains when the sites make different ones."""

from __future__ import annotations

import pytest

from fedbus.core.job.agreement import Agreement, Layouts, agreement

ALL = ("alpha", "beta", "gamma")


def test_a_single_site_decides() -> None:
    assert agreement({"alpha": "7c"}, ["alpha"], waits=True) == Agreement(digest="7c", sites=("alpha",))


def test_nothing_is_decided_while_nobody_has_opened_the_task() -> None:
    assert agreement({}, ALL, waits=True) == Agreement(
        digest=None, says="waiting until the task is open at alpha, beta, gamma"
    )


def test_more_than_half_need_not_wait_for_the_rest() -> None:
    assert agreement({"beta": "10", "gamma": "10"}, ALL, waits=True) == Agreement(digest="10", sites=("beta", "gamma"))


def test_the_first_by_alphabet_does_not_decide_against_two_others() -> None:
    found = agreement({"alpha": "7c", "beta": "10", "gamma": "10"}, ALL, waits=True)

    assert (found.digest, found.sites) == ("10", ("beta", "gamma"))
    assert found.says == "sites make different models: beta, gamma (10) against alpha (7c)"


@pytest.mark.parametrize("waits", [True, False])
def test_two_who_differ_decide_nothing_and_it_is_said_who_differs(waits: bool) -> None:
    found = agreement({"alpha": "7c", "beta": "10"}, ["alpha", "beta"], waits=waits)

    assert found.digest is None
    assert "alpha (7c) against beta (10)" in found.says
    assert "nobody can say who is right" in found.says


def test_a_site_that_never_says_is_not_waited_for_for_ever() -> None:
    layouts = {"alpha": "10"}

    assert agreement(layouts, ALL, waits=True).digest is None
    assert "beta, gamma" in agreement(layouts, ALL, waits=True).says
    assert agreement(layouts, ALL, waits=False) == Agreement(digest="10", sites=("alpha",))


def test_those_that_are_gone_do_not_count() -> None:
    layouts = {"alpha": "7c", "beta": "10", "gamma": "10"}

    assert agreement(layouts, ["alpha"], waits=True).digest == "7c"


def test_the_others_have_a_while_from_when_it_was_first_asked_and_less_where_nobody_has_said_anything() -> None:
    layouts = Layouts(wait_s=100.0, first_wait_s=20.0)

    assert layouts.agreement(ALL, now=5.0).says == "waiting until the task is open at alpha, beta, gamma"
    assert layouts.agreement(ALL, now=26.0) == Agreement(digest=None)  # any of them may make the params
    layouts.said("beta", "10")
    assert layouts.agreement(ALL, now=27.0).digest is None
    assert layouts.agreeing("10", ALL, now=27.0) == {"beta"}
    assert layouts.agreement(ALL, now=106.0).digest == "10"
    assert layouts.agreeing("10", ALL, now=106.0) == set(ALL)


def test_a_site_that_was_started_anew_says_its_model_again() -> None:
    layouts = Layouts(wait_s=100.0, first_wait_s=20.0)
    layouts.said("alpha", "7c")
    layouts.said("beta", "10")
    assert layouts.differ(ALL)

    layouts.forget("alpha")

    assert not layouts.differ(ALL)
    assert layouts.agreement(["alpha", "beta"], now=0.0).digest is None
