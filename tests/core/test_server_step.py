"""The step of a commit that nobody has set: at a margin from where the loop of sites and aggregator swings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival
from fedbus.core.rules.facts import Committed, Folded
from fedbus.core.rules.server_step import (
    BEGIN,
    GROW,
    LEAST,
    MARGIN,
    MOST,
    SHRINK,
    loop_load,
    server_step,
    stable_below,
    step_of,
)
from fedbus.core.rules.site_stats import MOST_SECANT, SiteStats
from fedbus.core.spec.training import TrainingSpec


def site(secant: float | None, *, staleness: float = 0.0, examples: int = 100) -> SiteStats:
    travel = 0.0 if secant is None else 4.0
    response = 0.0 if secant is None else 4.0 * secant
    return SiteStats(folded=3, running_staleness=staleness, num_examples=examples, travel=travel, response=response)


def alike(sites: Mapping[str, SiteStats]) -> dict[str, float]:
    return dict.fromkeys(sites, 1.0)


def test_before_any_secant_the_step_is_below_what_fedavg_makes_of_as_many_updates_and_stays() -> None:
    sites = {f"s{i}": site(None) for i in range(12)}
    first = server_step(size=4, sites=sites, shares=alike(sites), before=None)
    assert first == pytest.approx(BEGIN * 4 / 12)
    assert server_step(size=4, sites=sites, shares=alike(sites), before=first) == first


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_delayed_loop_is_stable_just_below_its_limit_and_not_above(momentum: float) -> None:
    for delay in (0, 1, 3, 10):
        for factor, stable in ((0.98, True), (1.02, False)):
            gain, x, ball = factor * stable_below(delay, momentum), [1.0] * (delay + 1), 0.0
            for _ in range(5000):
                ball = momentum * ball + x[-1 - delay]
                x.append(x[-1] - gain * (1.0 - momentum) * ball)
            assert (max(map(abs, x[-50:])) < 1.0) is stable


@pytest.mark.parametrize(
    ("secants", "staleness", "load"),
    [
        ((0.2, 0.2), (0.0, 0.0), 0.2 / 2),
        ((0.2, 0.2), (1.0, 1.0), 0.2),
        ((0.1, 0.3), (0.0, 1.0), (0.1 / 2 + 0.3) / 2),
        ((0.4, None), (1.0, 0.0), (0.4 + 0.4 / 2) / 2),
        ((-0.5, 7.0), (1.0, 1.0), (0.0 + MOST_SECANT) / 2),
        ((0.3, 1.7), (1.0, 1.0), (0.3 + 1.7) / 2),  # the second overshoots by itself
    ],
)
def test_the_load_is_the_weighted_sum_of_secants_over_what_their_delay_allows(
    secants: tuple[float | None, ...], staleness: tuple[float, ...], load: float
) -> None:
    sites = {f"s{i}": site(a, staleness=s) for i, (a, s) in enumerate(zip(secants, staleness, strict=True))}
    assert loop_load(sites, alike(sites)) == pytest.approx(load)


def test_shares_weigh_the_sites() -> None:
    sites = {"large": site(0.1), "small": site(0.9)}
    assert loop_load(sites, {"large": 3.0, "small": 1.0}) == pytest.approx((3 * 0.1 + 0.9) / 4 / 2)


def test_the_step_grows_no_faster_than_sites_are_measured() -> None:
    for measured, grow in ((1, 1 + (GROW - 1) / 4), (2, 1 + (GROW - 1) / 2), (4, GROW)):
        sites = {f"s{i}": site(0.0 if i < measured else None) for i in range(4)}  # nothing answers: wants MOST
        assert server_step(size=1, sites=sites, shares=alike(sites), before=0.1) == pytest.approx(0.1 * grow)


def test_the_step_goes_to_its_margin_and_stays() -> None:
    sites = {"a": site(0.5, staleness=1.0), "b": site(0.5, staleness=1.0), "new": site(None), "newer": site(None)}
    step, seen = None, []
    for _ in range(6):
        step = server_step(size=1, sites=sites, shares=alike({"a": sites["a"], "b": sites["b"]}), before=step)
        seen.append(step)
    assert seen[0] == pytest.approx(BEGIN / 4 * (1 + (GROW - 1) / 2))
    assert seen[-2:] == pytest.approx([MARGIN / 0.5] * 2)


def test_a_model_that_swings_is_slowed_within_a_few_commits() -> None:
    sites = {"a": site(1.0, staleness=9.0)}  # wants far less than 2
    step = server_step(size=1, sites=sites, shares=alike(sites), before=2.0)
    assert step == pytest.approx(2.0 * SHRINK)


@pytest.mark.parametrize(("secant", "bound"), [(0.0, MOST), (1.0, LEAST)])
def test_the_step_stays_within_its_bounds(secant: float, bound: float) -> None:
    sites = {"a": site(secant, staleness=1000.0 if secant else 0.0)}
    step: float | None = None
    for _ in range(100):
        step = server_step(size=1, sites=sites, shares=alike(sites), before=step)
    assert step == pytest.approx(bound)


def test_one_site_that_lies_moves_the_load_by_at_most_four_times_its_share() -> None:
    honest = {f"s{i}": site(0.2) for i in range(9)}
    for lie in (0.0, 1e9):
        sites = honest | {"liar": site(lie)}
        load = loop_load(sites, alike(sites))
        assert load is not None
        assert 0.9 * 0.2 <= 2 * load <= 0.9 * 0.2 + 0.1 * MOST_SECANT + 1e-9


SPEC = {
    "name": "job",
    "task": "digits",
    "strategy": {"kind": "calibrated", "buffer": 1},
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 100},
}


def run(spec: Mapping[str, object]) -> list[Folded | Committed]:
    """Two sites in turn, each with a secant of 0.25."""
    aggregation = Aggregation(TrainingSpec.parse(spec), now=0.0)
    aggregation.set_active({"a", "b"}, now=0.0)
    facts: list[Folded | Committed] = []
    for n in range(20):
        arrival = Arrival(
            update_id=UpdateId(site="ab"[n % 2], incarnation="0000000a", sequence=n + 1),
            base_version=max(0, aggregation.version - 1),
            effort=Effort(num_examples=10, travel=2.0, response=0.5),
            norm=1.0,
        )
        verdict = aggregation.receive(arrival, now=float(n))
        assert isinstance(verdict, Folded)
        facts += [verdict, aggregation.commit(now=float(n))]
    return facts


def test_a_job_reaches_the_step_that_its_sites_ask_for() -> None:
    steps = [fact.step for fact in run(SPEC) if isinstance(fact, Committed)]
    assert steps[0] < steps[5]
    assert steps[-1] == pytest.approx(MARGIN / 0.25, rel=0.1)  # staleness settles at 1


def test_a_learning_rate_that_is_given_is_kept() -> None:
    facts = run(SPEC | {"server_optimizer": {"kind": "plain", "lr": 0.5}})
    assert {fact.step for fact in facts if isinstance(fact, Committed)} == {1.0}


def test_a_replay_of_the_facts_goes_on_with_the_same_step() -> None:
    facts = run(SPEC)
    again = Aggregation(TrainingSpec.parse(SPEC), now=0.0)
    again.set_active({"a", "b"}, now=0.0)
    for fact in facts[:-1]:
        again.apply(fact)
    assert again.commit(now=19.0) == facts[-1]


@pytest.mark.parametrize(
    ("values_norm", "remembers", "most"), [(None, True, MOST), (3.0, False, MOST), (3.0, True, 2 / 6)]
)
def test_a_network_with_running_statistics_gets_no_longer_step_than_fedavg_where_all_sites_are_remembered(
    values_norm: float | None, remembers: bool, most: float
) -> None:
    spec = TrainingSpec.parse(
        {
            "name": "j",
            "task": "t",
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
            "stop": {"versions": 9},
        }
    )
    # given sites whose secants see no edge
    sites = {f"s{i}": site(0.0) for i in range(6)}
    entry = Folded(
        update_id=UpdateId(site="s0", incarnation="0123abcd", sequence=1),
        base_version=0,
        num_examples=1,
        staleness=0,
        weight=1.0,
        clip=1.0,
        norm=1.0,
        at=0.0,
        values_norm=values_norm,
    )
    step, before = 0.0, None
    for _ in range(20):
        step = step_of(spec, [entry], sites, active=sites, size=2, before=before, remembers=remembers)
        before = step
    assert step == pytest.approx(most)
