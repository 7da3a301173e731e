"""Tables of the strategies: weight, normaliser, when a commit is due, what is waited for."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Committed, Folded, Term
from fedbus.core.rules.memory import Memory, Slot
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.rules.strategies import (
    Buffer,
    Buffered,
    Evidence,
    FedAsync,
    Plan,
    Share,
    Strategy,
    Sync,
    strategy_of,
)
from fedbus.core.spec.training import TrainingSpec

LOCAL = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}


def strategy(kind: str, *, power: float = 0.5, staleness: str = "polynomial", **keys: Any) -> Strategy:
    return strategy_of(
        TrainingSpec.parse(
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
        sites=set(sites),
        active=frozenset(active.split()),
        awaited=set(active.split()) - set(sites),
        first_at=first_at,
        began_at=began_at,
    )


def holding(entries: tuple[Folded, ...]) -> Buffer:
    sites = {entry.update_id.site for entry in entries}
    return Buffer(entries=entries, sites=sites, active=frozenset(), first_at=0.0, began_at=0.0)


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


@pytest.mark.parametrize(
    ("given", "active", "size"), [(None, 1, 1), (None, 2, 1), (None, 3, 2), (None, 12, 4), (2, 2, 2)]
)
def test_a_calibrated_buffer_never_waits_for_the_slowest_site_unless_told_to(
    given: int | None, active: int, size: int
) -> None:
    rule = strategy("calibrated", buffer=given)
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
        (strategy("buffered"), buffer("a", active="a b c d"), "waiting for 1 more update, buffer 1 of 2"),
        (strategy("buffered", buffer=3), buffer(active="a b c d"), "waiting for 3 more updates, buffer 0 of 3"),
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


# ------------------------------------------------------------------ calibrated


def slot(site: str, *terms: tuple[int, float], weight: float = 1.0, count: int = 1, version: int = 0) -> Slot:
    return Slot(
        terms=tuple(Term(update_id=update_id(site, n), factor=factor) for n, factor in terms),
        weight=weight,
        count=count,
        version=version,
    )


def update_id(site: str, sequence: int) -> UpdateId:
    return UpdateId(site=site, incarnation="0" * 8, sequence=sequence)


def terms(*of: tuple[str, int, float]) -> tuple[Term, ...]:
    return tuple(Term(update_id=update_id(site, n), factor=factor) for site, n, factor in of)


CALIBRATED = strategy("calibrated")


@pytest.mark.parametrize(
    ("given", "share"),
    [
        (evidence(100, 9), Share(weight=10.0)),  # staleness does not discount
        # the first one takes what is remembered out
        (
            replace(evidence(100), remembered=slot("a", (1, 2.0), (2, 3.0))),
            Share(weight=10.0, also=terms(("a", 1, -2.0), ("a", 2, -3.0))),
        ),
        # the third one of a slot makes it a mean of three; what is taken out already stays out as it is
        (
            replace(
                evidence(81),
                remembered=slot("a", (1, 2.0)),
                slot=slot("a", (1, -2.0), (2, 6.0), (3, 3.0), count=2),
            ),
            Share(weight=3.0, also=terms(("a", 2, -2.0), ("a", 3, -1.0))),
        ),
        # ten times the lightest at most
        (replace(evidence(10**6), fewest_examples=100), Share(weight=100.0)),
        (replace(evidence(10**4), fewest_examples=100), Share(weight=100.0)),
        (replace(evidence(2500), fewest_examples=100), Share(weight=50.0)),
    ],
)
def test_what_an_update_counts_when_its_site_is_remembered(given: Evidence, share: Share) -> None:
    found = CALIBRATED.share(given)

    assert found.weight == pytest.approx(share.weight)
    assert {t.update_id: t.factor for t in found.also} == pytest.approx({t.update_id: t.factor for t in share.also})


def remembering(memory: dict[str, float], folds: dict[str, float], *, version: int = 1) -> Buffer:
    """A buffer of sites and their weights, after a version that holds others in memory."""
    facts = Memory()
    for number, (site, weight) in enumerate(memory.items()):
        facts.apply(replace(folded(site, weight=weight), update_id=update_id(site, number)))
    committed = Committed(version=version, update_ids=(), normaliser=1.0, reason="", at=0.0, remembers=True)
    facts.apply(committed)
    entries = tuple(
        replace(folded(site, weight=weight), update_id=update_id(site, 100 + number))
        for number, (site, weight) in enumerate(folds.items())
    )
    for entry in entries:
        facts.apply(entry)
    return Buffer(
        entries=entries,
        sites=set(folds),
        active=frozenset(memory) | frozenset(folds),
        first_at=0.0,
        began_at=0.0,
        version=version,
        memory=facts,
    )


@pytest.mark.parametrize(
    ("memory", "folds", "normaliser", "factor"),
    [
        # nothing is remembered: FedAvg of who is there
        ({}, {"a": 1.0, "b": 3.0}, 4.0, 0.0),
        # one of four: v = h + 4 / 1 p (delta - h)
        ({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}, {"a": 1.0}, 1.0, 0.25),
        # two of four, N / |S| = 2, P = 10
        ({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, {"a": 1.0, "d": 4.0}, 5.0, 0.1),
        # a newcomer, for which h stands: v = h + 2 / 1 * 1/2 (delta - h) = delta
        ({"a": 1.0}, {"b": 1.0}, 1.0, 0.0),
        # all of them: buffer / P + H / P, where the buffer has lost H
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, 3.0, 1 / 3),
    ],
)
def test_what_becomes_of_a_buffer_and_what_is_remembered(
    memory: dict[str, float], folds: dict[str, float], normaliser: float, factor: float
) -> None:
    plan = CALIBRATED.plan(remembering(memory, folds))

    assert plan == Plan(normaliser=pytest.approx(normaliser), memory=pytest.approx(factor), remembers=True)


@pytest.mark.parametrize("rule", [CALIBRATED, strategy("auto")])
def test_who_was_silent_for_4_n_versions_is_forgotten(rule: Strategy) -> None:
    made = replace(remembering({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 1.0}), rule="calibrated")

    assert rule.plan(made).corrections == ()
    assert rule.plan(replace(made, version=12)).corrections == ()
    assert rule.plan(replace(made, version=13)).corrections == terms(("b", 1, -2.0), ("c", 2, -3.0))
    # a slow site is not silent: b takes 30 s and sent 50 s ago, c takes 20 s
    stats = {"b": SiteStats(gaps=(30.0,), last_at=-50.0), "c": SiteStats(gaps=(20.0,), last_at=-50.0)}
    without_c = rule.plan(replace(made, version=13, stats=stats))
    assert without_c.corrections == terms(("c", 2, -3.0))
    assert (without_c.normaliser, without_c.memory) == (pytest.approx(3 / 2), pytest.approx(1 / 3))
    # and whether a site is there now does not matter
    assert rule.plan(replace(made, active=frozenset({"a"}))).corrections == ()


def test_a_buffer_of_one_site_alone_is_not_full() -> None:
    calibrated, buffered = strategy("calibrated", buffer=2), strategy("buffered", buffer=2)
    state = buffer("a", "a", active="a b c")

    assert calibrated.due(state, now=0) is None
    assert buffered.due(state, now=0) is not None
    full = buffer("a", "a", "b", active="a b c")
    assert calibrated.due(full, now=0) == "updates of 2 of 2 sites are in the buffer"


# ------------------------------------------------------------------ auto


AUTO = strategy("auto")


def timed(periods: dict[str, float | None], *sites: str, rule: str = "", first_at: float = 100.0) -> Buffer:
    """A buffer of updates of `sites`, where sites with such periods are active."""
    stats = {s: SiteStats(gaps=(p,) if p else (), folded=2, num_examples=4) for s, p in periods.items()}
    rate = sum(1.0 / p for p in periods.values() if p)
    made = remembering({}, dict.fromkeys(sites, 2.0))
    return replace(
        made,
        active=frozenset(periods),
        stats=stats,
        rule=rule,
        first_at=first_at,
        version=0,
        arrival_gap_s=1.0 / rate if rate else None,
    )


@pytest.mark.parametrize(
    ("current", "periods", "chosen"),
    [
        ("", {"a": 1.0, "b": None}, ""),
        ("", {"a": 1.0}, ""),
        ("calibrated", {"a": 1.0}, ""),  # nothing is known: it stays
        ("", {"a": 1.0, "b": 1.9}, "buffered"),
        ("", {"a": 1.0, "b": 2.0}, "calibrated"),
        ("buffered", {"a": 1.0, "b": 1.9}, ""),
        ("buffered", {"a": 1.0, "b": 3.0, "c": 9.7}, "calibrated"),
        ("calibrated", {"a": 1.0, "b": 1.7}, ""),
        ("calibrated", {"a": 1.0, "b": 1.5}, "buffered"),
    ],
)
def test_auto_chooses_by_how_much_the_sites_differ_in_speed(
    current: str, periods: dict[str, float | None], chosen: str
) -> None:
    plan = AUTO.plan(timed(periods, "a", rule=current))

    assert plan.rule == chosen
    if "c" in periods:
        assert plan.rule_reason == "the slowest site, c, takes 9.7x the fastest, measured over 3 sites"


def test_auto_weighs_by_the_rule_that_it_chose() -> None:
    slow = replace(evidence(100, 3), rule="buffered")

    assert AUTO.share(slow).weight == pytest.approx(40.0)  # b = 1, no discount
    assert AUTO.share(replace(slow, rule="calibrated")).weight == pytest.approx(10.0)
    assert AUTO.share(replace(slow, rule="")) == AUTO.share(slow)


def test_when_auto_turns_to_calibrated_what_the_active_sites_sent_last_is_remembered() -> None:
    made = timed({"a": 1.0, "b": 2.0}, "a", "b", "left", rule="buffered")

    plan = AUTO.plan(made)

    # n = 1 in every update; the buffer itself is still weighed as it was folded
    assert plan.corrections == terms(("a", 100, 1.0), ("b", 101, 1.0))
    assert (plan.normaliser, plan.memory, plan.remembers) == (6.0, 0.0, False)


def test_when_auto_has_turned_to_buffered_the_next_commit_forgets() -> None:
    made = replace(remembering({"a": 1.0, "b": 2.0}, {"a": 1.0}), rule="buffered")

    assert AUTO.plan(made).corrections == terms(("a", 0, -1.0), ("b", 1, -2.0))


@pytest.mark.parametrize(
    ("state", "at"),
    [
        # 1/1 + 1/2 + 1/2 updates a second, K = 2: full after 1 s, twice that is long
        (timed({"a": 1.0, "b": 2.0, "c": 2.0}, "a", "b"), 102.0),
        (timed({"a": 1.0, "b": 2.0, "c": None}, "a", "b"), pytest.approx(100 + 2 * 2 / 1.5)),
        (timed({"a": 1.0, "b": 2.0, "c": 2.0}, "a"), None),  # a site alone waits
        (timed({"a": None, "b": None}, "a", "b"), None),
    ],
)
def test_auto_does_not_wait_much_longer_than_a_buffer_takes_to_fill(state: Buffer, at: float | None) -> None:
    auto = strategy("auto", buffer=2) if len(state.active) == 3 else strategy("auto")

    assert auto.due_at(state) == at
