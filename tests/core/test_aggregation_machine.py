"""The aggregation under any order of messages, joins, leaves and time: what must hold always."""

import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import (
    Aggregation,
    Arrival,
    Committed,
    Duplicate,
    Fact,
    Folded,
    Refused,
)
from fedbus.core.spec.training import (
    AutoSpec,
    BufferedSpec,
    CalibratedSpec,
    FedAsyncSpec,
    SyncSpec,
    TrainingSpec,
)
from fedbus.errors import ProtocolError

SITES = ("mercy", "ucsf", "va", "zurich")

STRATEGIES = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("buffered")},
        optional={
            "buffer": st.integers(1, 6),
            "flush_after_s": st.floats(0.5, 20),
            "rate_correction": st.sampled_from([0.0, 0.5, 1.0]),
        },
    ),
    st.just({"kind": "buffered", "normalise": "buffer"}),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["calibrated", "auto"])},
        optional={"buffer": st.integers(1, 6), "flush_after_s": st.floats(0.5, 20)},
    ),
    st.just({"kind": "fedasync", "mixing": 0.6}),
    st.fixed_dictionaries({"kind": st.just("sync"), "deadline_s": st.floats(1, 30)}, optional={"k": st.integers(1, 6)}),
)
STALENESS = st.sampled_from(["constant", "polynomial", "hinge", "exponential"])


def spec_of(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "job", "task": "digits", "local": local, "stop": {"versions": 1}} | keys)


def state_of(aggregation: Aggregation) -> tuple[object, ...]:
    memory = aggregation.memory
    return (
        aggregation.version,
        aggregation.updates,
        aggregation.buffer,
        aggregation.chosen,
        dict(aggregation.all_stats),
        dict(memory.buffer),
        dict(memory.sites),
        dict(memory.last),
    )


class AggregationMachine(RuleBasedStateMachine):
    """Drives one aggregation as a daemon does: a commit whenever one is due."""

    @initialize(
        strategy=STRATEGIES,
        staleness=STALENESS,
        power=st.sampled_from([0.0, 0.5, 1.0]),
        clip=st.sampled_from([None, 1.0, 2.0]),
        limit=st.sampled_from([None, 2]),
    )
    def begin(
        self, strategy: dict[str, Any], staleness: str, power: float, clip: float | None, limit: int | None
    ) -> None:
        self.spec = spec_of(
            strategy=strategy,
            staleness="polynomial" if strategy["kind"] in ("auto", "calibrated") else staleness,
            num_examples_power=power,
            clip_to_own_median=clip,
            max_staleness=limit,
        )
        self.now = 0.0
        self.live = Aggregation(self.spec, now=0.0)
        self.facts: list[Fact] = []
        self.arrivals: list[Arrival] = []
        self.highest = 0

    @rule(sites=st.sets(st.sampled_from(SITES)))
    def sites_come_and_go(self, sites: set[str]) -> None:
        self.live.set_active(sites, now=self.now)
        self.commit_what_is_due()

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        due_at = self.live.next_due_at(now=self.now)
        self.now += seconds
        if self.live.commit_due(now=self.now):
            assert due_at is not None
            assert due_at <= self.now
        self.commit_what_is_due()

    @rule(
        site=st.sampled_from(SITES),
        back=st.integers(0, 4),
        examples=st.integers(1, 10**12),
        norm=st.floats(0, 1e9) | st.floats(0, 1e300),
    )
    def an_update_arrives(self, site: str, back: int, examples: int, norm: float) -> None:
        base = max(0, self.live.version - back)
        arrival = self.arrival(site, base, examples, norm)
        longest = self.live.site_stats(site).longest()

        fact = self.live.receive(arrival, now=self.now)

        limit = self.spec.max_staleness
        if norm > longest or (limit is not None and self.live.version - base > limit):
            assert isinstance(fact, Refused)
        else:
            assert isinstance(fact, Folded)
            assert 0.0 < fact.weight < math.inf
            assert 0.0 <= fact.clip <= 1.0
            assert fact.update_id == self.live.buffer[-1]
        self.facts.append(fact)
        self.commit_what_is_due()

    @precondition(lambda self: self.arrivals)
    @rule(data=st.data())
    def an_update_arrives_again(self, data: st.DataObject) -> None:
        arrival = data.draw(st.sampled_from(self.arrivals))
        before = state_of(self.live)

        verdict = self.live.receive(arrival, now=self.now)

        assert verdict == Duplicate(update_id=arrival.update_id)
        assert state_of(self.live) == before

    @rule(
        site=st.sampled_from(SITES),
        wrong=st.sampled_from(
            [
                {"base_version": 10**6},
                {"base_version": -1},
                {"num_examples": 0},
                {"num_examples": -5},
                {"num_examples": 10**13},
                {"norm": math.nan},
                {"norm": math.inf},
            ]
        ),
    )
    def a_bad_update_is_refused(self, site: str, wrong: dict[str, Any]) -> None:
        good = self.arrival(site, self.live.version, 1, 1.0)
        fields = {"base_version": good.base_version, "num_examples": 1, "norm": 1.0} | wrong
        version, buffer, updates = self.live.version, self.live.buffer, self.live.updates

        effort = Effort(num_examples=fields.pop("num_examples"))
        verdict = self.live.receive(Arrival(update_id=good.update_id, effort=effort, **fields), now=self.now)

        assert isinstance(verdict, Refused)
        assert (self.live.version, self.live.buffer, self.live.updates) == (version, buffer, updates)
        self.facts.append(verdict)

    @rule(version=st.integers(-1, 5), with_buffer=st.booleans())
    def an_illegal_commit_changes_nothing(self, version: int, with_buffer: bool) -> None:
        ids = self.live.buffer if with_buffer else ()
        if version == 1 and with_buffer and ids:
            return
        before = state_of(self.live)
        fact = Committed(version=self.live.version + version, update_ids=ids, normaliser=1.0, reason="", at=self.now)

        with pytest.raises(ProtocolError):
            self.live.apply(fact)

        assert state_of(self.live) == before

    @precondition(lambda self: self.facts)
    @rule(data=st.data())
    def a_fact_applied_twice_changes_nothing(self, data: st.DataObject) -> None:
        fact = data.draw(st.sampled_from(self.facts))
        before = state_of(self.live)

        with pytest.raises(ProtocolError):
            self.live.apply(fact)

        assert state_of(self.live) == before

    @invariant()
    def the_version_never_falls(self) -> None:
        if hasattr(self, "live"):
            assert self.live.version >= self.highest
            self.highest = self.live.version

    @invariant()
    def nothing_is_due_when_everything_due_was_committed(self) -> None:
        if hasattr(self, "live"):
            assert self.live.commit_due(now=self.now) is None

    @invariant()
    def the_buffer_is_below_its_size(self) -> None:
        if hasattr(self, "live"):
            active, rule = len(self.live.active), self.spec.strategy
            have, sites = len(self.live.buffer), {update_id.site for update_id in self.live.buffer}
            match rule:
                case BufferedSpec(buffer=size) | AutoSpec(buffer=size) | CalibratedSpec(buffer=size):
                    calibrated = isinstance(rule, CalibratedSpec) or (self.live.chosen or "").startswith("calibrated")
                    full = min(size or max(2, math.ceil(active / 3)), active)
                    assert have == 0 or (len(sites) if calibrated else have) < full
                case FedAsyncSpec():
                    assert have == 0
                case SyncSpec(k=k):
                    assert have == 0 or self.live.active - sites
                    assert have == 0 or k is None or len(sites) < k

    @invariant()
    def what_is_remembered_is_what_the_terms_of_the_facts_come_to(self) -> None:
        """Each site's memory holds its last slot and nothing else, however it came to be."""
        if hasattr(self, "live"):
            buffer: dict[UpdateId, float] = defaultdict(float)
            memory: dict[UpdateId, float] = defaultdict(float)
            for fact in self.facts:
                match fact:
                    case Folded(update_id=own, weight=weight, clip=clip, also=also):
                        for update, factor in ((own, weight * clip), *((t.update_id, t.factor) for t in also)):
                            assert update.site == own.site
                            buffer[update] += factor
                    case Committed(corrections=corrections, remembers=remembers):
                        for term in corrections:
                            memory[term.update_id] += term.factor
                        for update, factor in buffer.items() if remembers else ():
                            memory[update] += factor
                        buffer.clear()
            held = {t.update_id: t.factor for slot in self.live.memory.sites.values() for t in slot.terms}
            assert held == {update: factor for update, factor in memory.items() if factor != 0.0}
            assert held.keys() <= self.live.memory.needed()
            assert all(slot.weight > 0 for slot in self.live.memory.sites.values())

    @invariant()
    def a_replay_gives_the_same_state(self) -> None:
        if hasattr(self, "live"):
            replayed = Aggregation(self.spec, now=-5.0)
            for fact in self.facts:
                replayed.apply(fact)
            assert state_of(replayed) == state_of(self.live)

    def arrival(self, site: str, base: int, examples: int, norm: float) -> Arrival:
        update_id = UpdateId(site=site, incarnation="0" * 8, sequence=len(self.arrivals))
        made = Arrival(update_id=update_id, base_version=base, effort=Effort(num_examples=examples), norm=norm)
        self.arrivals.append(made)
        return made

    def commit_what_is_due(self) -> None:
        if self.live.commit_due(now=self.now) is None:
            return
        version, buffer = self.live.version, self.live.buffer
        fact = self.live.commit(now=self.now)
        assert (fact.version, fact.update_ids) == (version + 1, buffer)
        assert 0.0 < fact.normaliser < math.inf
        assert 0.0 < fact.step <= 1.0
        assert math.isfinite(fact.memory)
        assert self.live.buffer == ()
        self.facts.append(fact)


TestAggregationMachine = AggregationMachine.TestCase
TestAggregationMachine.settings = settings(max_examples=60, stateful_step_count=30)
