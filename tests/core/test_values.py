"""Whose values a version takes, and how much of each."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Folded
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.rules.values import OUTLIER, newest_values


def last(site: str, *, norm: float | None = 1.0, examples: int = 100, version: int = 0, at: float = 0.0) -> Folded:
    return Folded(
        update_id=UpdateId(site=site, incarnation="0" * 8, sequence=1),
        base_version=version,
        num_examples=examples,
        staleness=0,
        weight=1.0,
        clip=1.0,
        norm=1.0,
        at=at,
        values_norm=norm,
    )


def factors(*folds: Folded, stats: dict[str, SiteStats] | None = None, **keys: Any) -> dict[str, float]:
    asked: dict[str, Any] = {"version": 0, "now": 0.0, "power": 0.5, "most_ratio": 10.0} | keys
    terms = newest_values({fold.update_id.site: fold for fold in folds}, stats or {}, **asked)
    return {term.update_id.site: term.factor for term in terms}


def test_a_site_counts_by_its_examples_as_its_updates_do() -> None:
    assert factors(last("a"), last("b", examples=400)) == {"a": 10.0, "b": 20.0}
    assert factors(last("a"), last("b", examples=10**12)) == {"a": 10.0, "b": 100.0}


def test_a_site_that_claims_one_example_does_not_weigh_the_others_down() -> None:
    assert factors(last("a", examples=400), last("b", examples=400), last("c", examples=1)) == {
        "a": 20.0,
        "b": 20.0,
        "c": 1.0,
    }


def test_a_site_whose_training_changes_no_values_has_no_say() -> None:
    assert factors(last("a", norm=None), last("b")) == {"b": 10.0}


def test_a_site_with_values_of_another_size_than_the_others_moves_them_no_further_than_so_many_times() -> None:
    found = factors(last("a"), last("b"), last("c", norm=1e9))

    assert found["a"] == found["b"] == 10.0
    assert found["c"] * 1e9 == pytest.approx(10.0 * OUTLIER)


def test_two_sites_cannot_say_who_of_them_is_right() -> None:
    assert factors(last("a"), last("b", norm=1e9)) == {"a": 10.0, "b": 10.0}


def test_a_site_with_no_values_but_zeros_does_not_silence_the_others() -> None:
    assert factors(last("a"), last("b"), last("c", norm=0.0)) == {"a": 10.0, "b": 10.0, "c": 10.0}


def test_a_site_is_forgotten_after_so_many_versions_unless_it_always_takes_so_long() -> None:
    folds = (last("a", version=20, at=200.0), last("slow", version=10, at=100.0))

    assert factors(*folds, version=20, now=200.0).keys() == {"a"}
    stats = {"slow": SiteStats(gaps=(90.0,), last_at=100.0)}
    assert factors(*folds, version=20, now=200.0, stats=stats).keys() == {"a", "slow"}
    assert factors(*folds, version=20, now=300.0, stats=stats).keys() == {"a"}
