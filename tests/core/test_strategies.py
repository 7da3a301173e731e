"""Tables of the strategies: weight, normaliser, when a commit is due, what is waited for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.facts import Folded
from fedbus.core.jobspec import JobSpec
from fedbus.core.messages import UpdateId
from fedbus.core.site_stats import SiteStats
from fedbus.core.strategies import Buffer, Buffered, Evidence, FedAsync, Plan, Share, Strategy, Sync, strategy_of

LOCAL = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}


def strategy(kind: str, *, power: float = 0.5, staleness: str = "polynomial", **keys: Any) -> Strategy:
    return strategy_of(
        JobSpec.parse(
            {
                "name": "job",
                "task": "digits",
                "local": LOCAL,
                "stop": {"versions": 1},
                "strategy": {"kind": kind} | keys,
                "staleness": staleness,
                "num_examples_power": power,
            }
        )
    )


def evidence(num_examples: int, staleness: int = 0, *, active: int = 4, running: float | None = None) -> Evidence:
    return Evidence(
        num_examples=num_examples, staleness=staleness, site=SiteStats(running_staleness=running), active=active
    )


def folded(site: str, *, weight: float = 1.0, num_examples: int = 1, at: float = 0.0) -> Folded:
    return Folded(
        update_id=UpdateId(site=site, incarnation="0" * 8, sequence=0),
        base_version=0,
        num_examples=num_examples,
        staleness=0,
        weight=weight,
        clip=1.0,
        norm=1.0,
        at=at,
    )


def buffer(*sites: str, active: str, first_at: float | None = None, began_at: float = 0.0) -> Buffer:
    return Buffer(
        entries=tuple(folded(site) for site in sites),
        active=frozenset(active.split()),
        first_at=first_at,
        began_at=began_at,
    )


def holding(entries: tuple[Folded, ...]) -> Buffer:
    return Buffer(entries=entries, active=frozenset(), first_at=0.0, began_at=0.0)


@pytest.mark.parametrize(
    ("rule", "given", "weight"),
    [
        (strategy("buffered"), evidence(100), 10.0),
        (strategy("buffered"), evidence(100, 3), 5.0),
        (strategy("buffered", power=1.0), evidence(100, 3), 50.0),
        (strategy("buffered", power=0.0), evidence(100, 0), 1.0),
        # the running mean counts this update in: .8 * 1 + .2 * 6 = 2
        (strategy("buffered", staleness="constant", rate_correction=1.0), evidence(1, 6, running=1.0), 3.0),
        # at most 3 N / K = 6
        (strategy("buffered", staleness="constant", rate_correction=1.0), evidence(1, 99), 6.0),
        (strategy("fedasync", mixing=0.6), evidence(100), 0.6),
        (strategy("fedasync", mixing=0.6), evidence(100, 3), 0.3),
        (strategy("sync", power=1.0), evidence(100), 100.0),
        (strategy("sync", power=1.0), evidence(100, 3), 50.0),
    ],
)
def test_weight(rule: Strategy, given: Evidence, weight: float) -> None:
    assert rule.share(given) == Share(weight=pytest.approx(weight, rel=1e-15))


@pytest.mark.parametrize(
    ("rule", "normaliser"),
    [
        (strategy("buffered"), 2.5),
        (strategy("buffered", normalise="buffer", power=0.0), 2.0),  # the textbook's K
        (strategy("buffered", normalise="buffer", power=0.5), 5.0),  # sqrt(4) + sqrt(9)
        (strategy("fedasync"), 1.0),
        (strategy("sync"), 2.5),
    ],
)
def test_normaliser(rule: Strategy, normaliser: float) -> None:
    entries = (folded("a", weight=2.0, num_examples=4), folded("b", weight=0.5, num_examples=9))

    assert rule.plan(holding(entries)) == Plan(normaliser=normaliser)


@pytest.mark.parametrize(
    ("buffer_size", "active", "size"),
    [
        (None, 0, 1),
        (None, 1, 1),
        (None, 2, 2),
        (None, 4, 2),
        (None, 6, 2),
        (None, 7, 3),
        (None, 12, 4),
        (1, 4, 1),
        (3, 4, 3),
        (10, 4, 4),
        (10, 0, 1),
    ],
)
def test_buffer_size_never_needs_more_than_the_active_sites(buffer_size: int | None, active: int, size: int) -> None:
    rule = strategy("buffered", buffer=buffer_size)

    assert isinstance(rule, Buffered)
    assert rule.size(active) == size


FLUSHED = strategy("buffered", buffer=3, flush_after_s=10.0)
SYNC = strategy("sync", deadline_s=60.0)
TWO_OF = strategy("sync", k=2, deadline_s=60.0)


@pytest.mark.parametrize(
    ("rule", "state", "now", "due"),
    [
        (strategy("buffered"), buffer("a", active="a b c d"), 1e9, None),
        (strategy("buffered"), buffer("a", "a", active="a b c d"), 0, "2 of 2 updates are in the buffer"),
        (strategy("buffered"), buffer("a", active="a"), 0, "1 of 1 updates are in the buffer"),
        (FLUSHED, buffer("a", active="a b c", first_at=5), 14.9, None),
        (FLUSHED, buffer("a", active="a b c", first_at=5), 15, "the first update waited 10 s"),
        (strategy("fedasync"), buffer("a", active="a b"), 0, "every update makes a version"),
        (SYNC, buffer("a", "a", active="a b"), 59.9, None),
        (SYNC, buffer("a", "b", active="a b"), 0, "2 sites contributed"),
        (SYNC, buffer("a", "gone", active="a b"), 0, None),
        (SYNC, buffer("a", active="a b", began_at=10), 70, "the deadline of 60 s passed with 1 site"),
        (TWO_OF, buffer("a", "a", active="a b c"), 0, None),
        (TWO_OF, buffer("a", "gone", active="a b c"), 0, "2 sites contributed"),
        (TWO_OF, buffer("a", active="a"), 0, "1 site contributed"),
    ],
)
def test_due(rule: Strategy, state: Buffer, now: float, due: str | None) -> None:
    assert rule.due(state, now=now) == due


@pytest.mark.parametrize(
    ("rule", "state", "at"),
    [
        (strategy("buffered"), buffer("a", active="a b", first_at=5), None),
        (FLUSHED, buffer("a", active="a b", first_at=5), 15),
        (strategy("fedasync"), buffer("a", active="a b"), None),
        (SYNC, buffer("a", active="a b", began_at=3), 63),
        (SYNC, buffer(active="a b", began_at=3), None),
    ],
)
def test_due_by_time_alone(rule: Strategy, state: Buffer, at: float | None) -> None:
    assert rule.due_at(state) == at


@pytest.mark.parametrize(
    ("rule", "state", "words"),
    [
        (strategy("buffered"), buffer("a", active="a b c d"), "waiting for 1 more update (1 of 2 in the buffer)"),
        (strategy("buffered", buffer=3), buffer(active="a b c d"), "waiting for 3 more updates (0 of 3 in the buffer)"),
        (strategy("fedasync"), buffer(active="a"), "waiting for the next update"),
        (SYNC, buffer("a", active="a b c"), "waiting for 2 more sites (1 contributed)"),
    ],
)
def test_what_is_waited_for_is_said(rule: Strategy, state: Buffer, words: str) -> None:
    assert rule.waiting_for(state) == words


def test_only_sync_makes_a_site_wait_for_a_new_version() -> None:
    assert isinstance(SYNC, Sync)
    assert SYNC.wait_for_new_version
    assert not strategy("buffered").wait_for_new_version
    assert isinstance(strategy("fedasync"), FedAsync)
    assert not strategy("fedasync").wait_for_new_version


@given(
    examples=st.lists(st.integers(1, 10**12), min_size=1, max_size=20), normalise=st.sampled_from(["weights", "buffer"])
)
def test_a_buffer_of_all_fresh_sites_is_fedavg_to_the_bit(examples: list[int], normalise: str) -> None:
    sites = len(examples)
    buffered = strategy("buffered", power=1.0, buffer=sites, normalise=normalise)
    sync = strategy("sync", power=1.0)

    entries: dict[Strategy, list[Folded]] = {}
    for rule in (buffered, sync):
        weights = [rule.share(evidence(n, 0, active=sites)).weight for n in examples]
        assert weights == [float(n) for n in examples]
        entries[rule] = [
            folded(f"s{i}", weight=w, num_examples=n) for i, (w, n) in enumerate(zip(weights, examples, strict=True))
        ]

    plans = [rule.plan(holding(tuple(entries[rule]))) for rule in (buffered, sync)]
    assert plans == [Plan(normaliser=float(sum(examples)))] * 2
