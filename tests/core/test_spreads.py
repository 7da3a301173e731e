"""What independent sites make together, and what no site may say."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.job.scores import mean_of
from fedbus.core.job.spreads import MOST_CONVOLVED, OfSite, together
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.spread import LEVELS, Spread
from fedbus.errors import DecodeError


def spread_of(draws: Any, *, cases: int = 30) -> Spread:
    quantiles = tuple(map(float, np.quantile(draws, LEVELS)))
    return Spread(value=float(np.mean(draws)), cases=cases, draws=len(draws), quantiles=quantiles)


def of_sites(*draws: Any, examples: tuple[int, ...]) -> dict[str, OfSite]:
    return {f"site-{at}": OfSite(examples=examples[at], spread=spread_of(found)) for at, found in enumerate(draws)}


@pytest.mark.parametrize("examples", [(36,), (50, 10), (36, 12, 24), (5, 5, 5, 5)])
def test_the_interval_of_the_mean_is_that_of_the_sum_of_independent_draws(examples: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    draws = [rng.beta(8 + at, 2, 20_000) * (1 + at) for at in range(len(examples))]
    found = together(of_sites(*draws, examples=examples))
    assert found is not None
    direct = sum(n / sum(examples) * of_site for n, of_site in zip(examples, draws, strict=True))
    low, high = np.quantile(direct, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04 * (high - low))
    assert found.value == pytest.approx(float(np.mean(direct)), abs=1e-9)
    assert (found.sites, found.cases) == (len(examples), 30 * len(examples))


def test_many_sites_are_added_as_normal_ones() -> None:
    rng = np.random.default_rng(3)
    sites = MOST_CONVOLVED + 8
    draws = [rng.normal(0.7, 0.05, 2000) for _ in range(sites)]
    found = together(of_sites(*draws, examples=(10,) * sites))
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.05 / math.sqrt(sites), rel=0.1)


def test_sites_that_say_no_quantiles_are_left_out_and_counted() -> None:
    found = together({"a": OfSite(examples=9, spread=Spread(value=0.1)), **of_sites([0.5, 0.6, 0.7], examples=(5,))})
    assert found is not None
    assert (found.sites, found.value) == (1, pytest.approx(0.6))
    assert together({"a": OfSite(examples=9, spread=Spread(value=0.1))}) is None
    assert together({}) is None


values = st.floats(-1e99, 1e99)
liars = st.builds(
    lambda value, quantiles: Spread(value=value, cases=5, draws=9, quantiles=tuple(sorted(quantiles))),
    values,
    st.lists(values, min_size=len(LEVELS), max_size=len(LEVELS)),
)


@given(liar=liars, examples=st.integers(1, 2**53))
def test_one_site_cannot_move_the_mean_or_its_interval_far(liar: Spread, examples: int) -> None:
    rng = np.random.default_rng(3)
    honest = of_sites(*(rng.normal(0.7, 0.02, 500) for _ in range(2)), examples=(30, 40))
    found = together({**honest, "liar": OfSite(examples=examples, spread=liar)})
    assert found is not None
    assert -10 < found.low <= found.value <= found.high < 10
    given_values = [(30, honest["site-0"].spread.value), (40, honest["site-1"].spread.value), (examples, liar.value)]
    assert found.value == pytest.approx(mean_of(given_values))


@pytest.mark.parametrize(
    "spread",
    [
        {"quantiles": [0.5]},
        {"quantiles": [0.5] * 100_000},
        {"quantiles": [0.5] * 20 + [0.4]},
        {"quantiles": [0.5] * 20 + [1e101]},
        {"value": -1e101},
        {"cases": -1},
        {"cases": 2**70},
        {"quantiles": ["0.5"] * 21},
        {"quantiles": None},
        {"value": True},
    ],
)
@pytest.mark.parametrize("where", ["spreads", "differences"])
def test_a_spread_that_no_site_of_ours_says_is_refused(where: str, spread: dict[str, Any]) -> None:
    body = {"site": "mercy", "job": "heart", "version": 3, "metrics": {"auc": 0.5}, "num_examples": 9}
    body[where] = {"auc": {"value": 0.5, "cases": 9, "draws": 9, "quantiles": []} | spread}
    with pytest.raises(DecodeError):
        wire.decode("score-answer", {"schema": wire.SCHEMA}, json.dumps(body).encode())


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999"])
def test_a_quantile_that_is_not_finite_is_refused(value: bytes) -> None:
    body = b'{"site":"mercy","job":"heart","version":3,"metrics":{},"num_examples":9,"spreads":{"auc":{"value":%s}}}'
    with pytest.raises(DecodeError):
        wire.decode("score-answer", {"schema": wire.SCHEMA}, body % value)


def test_spreads_pass_the_wire_and_those_of_a_release_before_say_none() -> None:
    spread = spread_of([0.5, 0.6, 0.7])
    answer = m.ScoreAnswer(
        site="mercy", job="heart", version=3, metrics={"auc": 0.6}, num_examples=9, spreads={"auc": spread}
    )
    coded = wire.encode(answer)
    assert wire.decode(coded.type, coded.headers, coded.body) == answer
    body = b'{"site":"mercy","job":"heart","version":3,"metrics":{"auc":0.5},"num_examples":9}'
    old = wire.decode("score-answer", {"schema": wire.SCHEMA}, body)
    assert isinstance(old, m.ScoreAnswer)
    assert (old.spreads, old.differences) == ({}, {})
