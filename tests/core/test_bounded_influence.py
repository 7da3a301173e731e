"""What one site that lies can do to a job of honest ones, from its first update on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival, Committed, Folded, Refused
from fedbus.core.rules.peers import FIRST, LONGEST, MOST_EXAMPLES, MOST_OFTEN, model_scale
from fedbus.core.rules.remarks import Remarks
from fedbus.core.rules.server_step import LEAST, MOST
from fedbus.core.spec.training import TrainingSpec

LOCAL = {"steps": 10, "batch_size": 1, "learning_rate": 0.1}
HONEST = ("mercy", "ucsf", "va")
LIAR = "zurich"
EXAMPLES = {"mercy": 100, "ucsf": 300, "va": 900}


@dataclass
class Job:
    """A job whose params are one number, moved as the facts say: what of it came from the liar is kept apart."""

    keys: dict[str, Any]
    now: float = 0.0
    sent: int = 0
    deltas: dict[UpdateId, float] = field(default_factory=dict)
    buffer: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    moved: list[dict[str, float]] = field(default_factory=list)
    commits: list[Committed] = field(default_factory=list)
    scale: float | None = 5.0

    def __post_init__(self) -> None:
        base = {"name": "job", "task": "t", "local": LOCAL, "stop": {"versions": 1}}
        self.aggregation = Aggregation(TrainingSpec.parse(base | self.keys), now=0.0)
        self.aggregation.set_active({*HONEST, LIAR}, now=0.0)

    def sends(
        self, site: str, delta: float, *, examples: int | None = None, after_s: float = 1.0, **claims: Any
    ) -> Any:
        """An update comes `after_s` after the last one; a version is made when it is due."""
        self.now += after_s
        self.sent += 1
        update_id = UpdateId(site=site, incarnation="0" * 8, sequence=self.sent)
        self.deltas[update_id] = delta
        base_version = claims.pop("base_version", self.aggregation.version)
        arrival = Arrival(
            update_id=update_id,
            base_version=base_version,
            effort=Effort(num_examples=EXAMPLES.get(site, 300) if examples is None else examples, **claims),
            norm=abs(delta),
            scale=self.scale,
        )
        fact = self.aggregation.receive(arrival, now=self.now)
        if isinstance(fact, Folded):
            self._add(self.buffer, update_id, fact.weight * fact.clip)
            for term in fact.also:
                self._add(self.buffer, term.update_id, term.factor)
        if self.aggregation.commit_due(now=self.now):
            self._commit()
        return fact

    def _add(self, total: dict[str, float], update_id: UpdateId, factor: float) -> None:
        total[update_id.site] = total.get(update_id.site, 0.0) + factor * self.deltas[update_id]

    def _commit(self) -> None:
        fact = self.aggregation.commit(now=self.now)
        for term in fact.corrections:
            self._add(self.memory, term.update_id, term.factor)
        sites = self.buffer.keys() | self.memory.keys()
        self.moved.append(
            {
                s: (self.buffer.get(s, 0.0) / fact.normaliser + fact.memory * self.memory.get(s, 0.0)) * fact.step
                for s in sites
            }
        )
        if fact.remembers:
            for site, part in self.buffer.items():
                self.memory[site] = self.memory.get(site, 0.0) + part
        self.buffer = {}
        self.commits.append(fact)

    def honest_round(self, *, delta: float = 1.0) -> None:
        for site in HONEST:
            fact = self.sends(site, delta)
            assert isinstance(fact, Folded)
            assert fact.clip == 1.0

    def farthest(self, site: str) -> float:
        """The most that a version was moved by what a site sent."""
        return max((abs(parts.get(site, 0.0)) for parts in self.moved), default=0.0)


STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "auto"},
    {"strategy": "calibrated"},
    {"strategy": "buffered"},
    {"strategy": {"kind": "buffered", "normalise": "buffer"}},
    {"strategy": {"kind": "buffered", "rate_correction": 1.0, "buffer": 1}},
    {"strategy": "fedasync"},
    {"strategy": "sync"},
    {"strategy": {"kind": "sync", "k": 2}, "num_examples_power": 1.0},
    {"strategy": "buffered", "num_examples_ratio": None, "num_examples_power": 1.0},
    {"strategy": "buffered", "local": LOCAL | {"time_boxed": True}},
]


@given(
    keys=st.sampled_from(STRATEGIES),
    first=st.booleans(),
    lies=st.lists(
        st.tuples(
            st.floats(1e-12, 1e300) | st.floats(0.0, 1e4),
            st.sampled_from([1, 300, 10**12]),
            st.integers(0, 3),
            st.sampled_from([1e-6, 1.0]),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_no_version_is_moved_further_by_a_liar_than_the_stated_multiple_of_what_honest_sites_send(
    keys: dict[str, Any], first: bool, lies: list[tuple[float, int, int, float]]
) -> None:
    job = Job(keys=keys)
    if not first:
        job.honest_round()
    for length, examples, stale, after_s in lies:
        base = max(0, job.aggregation.version - stale)
        job.sends(LIAR, -length, examples=examples, after_s=after_s, base_version=base, steps=1)
        job.honest_round()
    # then a version moves by no more than its longest delta times the number of sites, whose mean it is at most
    bound = max(FIRST * 5.0, LONGEST) if first else LONGEST
    assert job.farthest(LIAR) <= (2 * len(HONEST) + 2) * MOST * bound
    # and the honest sites were folded throughout, at the length at which they came
    assert all(job.aggregation.site_stats(site).refused == 0 for site in HONEST)


def test_the_first_update_of_a_newcomer_is_no_longer_than_what_the_others_bound_it_by() -> None:
    job = Job(keys={"strategy": "buffered"})
    job.honest_round()
    fact = job.sends(LIAR, 1e3, examples=10**12)
    assert fact.clip * fact.norm == pytest.approx(LONGEST)
    assert fact.num_examples == MOST_EXAMPLES * 300


def test_the_very_first_update_of_a_job_is_bounded_by_the_model_and_an_honest_one_is_left_as_it_is() -> None:
    for norm, clip in ((4.0, 1.0), (1e4, FIRST * 5.0 / 1e4)):
        assert Job(keys={"strategy": "buffered"}).sends("mercy", norm).clip == pytest.approx(clip)


@pytest.mark.parametrize(("norm", "numel", "long"), [(5.0, 4810, 20.0), (0.0, 100, 400.0), (0.001, 100, 400.0)])
def test_a_model_that_begins_with_zeros_bounds_nobody_who_learns(norm: float, numel: int, long: float) -> None:
    assert FIRST * model_scale(norm, numel) == pytest.approx(long)


def test_rare_cases_many_steps_and_small_numbers_of_others_starve_nobody() -> None:
    # given sites that have learnt all but for one, which alone has rare cases
    job = Job(keys={"strategy": "buffered", "clip_to_own_median": None})
    for _ in range(4):
        job.honest_round(delta=1e-7)
    assert job.sends(LIAR, LONGEST * 1e-3 * 5.0).clip == 1.0
    # and one that makes thirty times the steps of the others
    job = Job(keys={"strategy": "buffered"})
    job.honest_round()
    assert job.sends(LIAR, 30.0).clip == 1.0


def test_a_site_that_rises_slowly_is_told_and_stays_within_what_the_others_bound_it_by() -> None:
    job, remarks, said = Job(keys={"strategy": "buffered"}), Remarks(), []
    length, longest = 1.0, 0.0
    for _ in range(80):
        job.honest_round()
        fact = job.sends(LIAR, length)
        longest = max(longest, fact.clip * fact.norm)
        said += remarks.on_folded(fact, job.aggregation.peers(LIAR))
        length *= 1.1
    assert longest == pytest.approx(LONGEST)
    assert said[0] == (
        "zurich: its updates are 8.14 times as long as those of the other sites; at most 30 times counts"
    )
    assert 3 <= len(said) <= 10


def test_a_sudden_rise_is_told_where_nobody_else_is_there_to_compare_with() -> None:
    job, remarks = Job(keys={"strategy": "buffered", "clip_to_own_median": None}), Remarks()
    for _ in range(30):
        fact = job.sends("mercy", 1.0)
        assert not remarks.on_folded(fact, job.aggregation.peers("mercy"))
    fact = job.sends("mercy", 9.0)
    assert remarks.on_folded(fact, job.aggregation.peers("mercy")) == [
        "mercy: its updates are 9 times as long as 20 updates ago"
    ]


def test_a_claim_of_one_example_does_not_make_all_others_alike() -> None:
    # given sites of 100, 300 and 900 examples
    job = Job(keys={"strategy": "buffered"})
    job.honest_round()
    before = job.sends("va", 1.0).weight
    job.sends(LIAR, 1.0, examples=1)
    # then each weighs at least as much as the median site does
    assert job.sends("va", 1.0).weight == pytest.approx(math.sqrt(EXAMPLES["ucsf"]))
    assert before == math.sqrt(EXAMPLES["va"])


def test_a_claim_of_very_many_examples_does_not_stop_a_job_that_divides_by_them() -> None:
    job = Job(keys={"strategy": {"kind": "buffered", "normalise": "buffer", "buffer": 4}})
    job.honest_round()
    job.sends(LIAR, 0.0, examples=10**12)
    assert job.farthest("va") > 1.0 / (2 * math.sqrt(MOST_EXAMPLES))


def steps_with(**claims: Any) -> list[float]:
    """The steps of a job whose liar claims this in every update."""
    job = Job(keys={"strategy": "buffered"})
    for _ in range(30):
        for site in HONEST:
            job.sends(site, 1.0, travel=1.0, response=0.2)
        job.sends(LIAR, 1.0, **claims)
    return [fact.step for fact in job.commits]


@pytest.mark.parametrize(
    "claims",
    [
        {"travel": 1.0, "response": 1e300},
        {"travel": 1e-300, "response": 1.0},
        {"travel": 1.0, "response": 1.0, "base_version": 0},
        {"travel": 1.0, "response": -1e300},
        {"travel": 1.7e308, "response": 1.7e308},
    ],
)
def test_no_claim_of_one_site_stops_the_step_of_all_or_blows_it_up(claims: dict[str, Any]) -> None:
    honest = steps_with(travel=1.0, response=0.2)[-1]
    steps = steps_with(**claims)
    assert min(steps[8:]) > max(LEAST, honest / 5)
    assert max(steps) <= min(MOST, 2 * honest)


def test_a_claim_of_an_ancient_base_does_not_stop_the_step_of_fadas() -> None:
    job = Job(keys={"strategy": "buffered", "server_optimizer": "fadas"})
    for _ in range(100):
        job.honest_round()
    job.sends(LIAR, 1.0, base_version=0)
    job.sends(LIAR, 1.0, base_version=0)
    assert min(fact.step for fact in job.commits) >= 1 / 40


def test_a_site_that_sends_far_more_often_than_the_others_is_folded_so_often_and_no_more() -> None:
    # given honest sites with a period of 3 s
    job = Job(keys={"strategy": "fedasync"})
    for _ in range(4):
        job.honest_round()
    # when another one sends a thousand updates in three seconds
    facts = [job.sends(LIAR, 1.0, after_s=0.003) for _ in range(1000)]
    folded = sum(isinstance(fact, Folded) for fact in facts)
    # then so many are folded as it has time for, and the others are refused with one reason
    assert folded <= MOST_OFTEN + 5
    assert len({fact.reason for fact in facts if isinstance(fact, Refused)}) == 1
    # and a site that comes back with three at once is not meant
    assert all(isinstance(job.sends("va", 1.0, after_s=s), Folded) for s in (60.0, 0.001, 0.001))


@pytest.mark.parametrize("k", [None, 4])
def test_a_synchronous_version_does_not_wait_for_a_site_whose_update_was_refused(k: int | None) -> None:
    # given a site whose update is refused, and which then waits for the next version
    job = Job(keys={"strategy": {"kind": "sync", "k": k}})
    assert isinstance(job.sends(LIAR, math.inf), Refused)
    job.aggregation.set_idle(LIAR)
    # when all others have sent theirs
    job.honest_round()
    # then the version is made at once
    assert job.aggregation.version == 1
    # and in the next one it is waited for again
    job.honest_round()
    assert job.aggregation.version == 1
    job.sends(LIAR, 1.0)
    assert job.aggregation.version == 2
