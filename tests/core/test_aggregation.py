"""The aggregation of one job: guards, folding, commits, replay."""

import math
from typing import Any

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import (
    Aggregation,
    Arrival,
    Committed,
    Duplicate,
    Folded,
    Refused,
)
from fedbus.core.rules.server_step import BEGIN
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import ProtocolError

LOCAL = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}


def job_spec(**keys: Any) -> TrainingSpec:
    return TrainingSpec.parse({"name": "job", "task": "digits", "local": LOCAL, "stop": {"versions": 1}} | keys)


def aggregation(*active: str, **keys: Any) -> Aggregation:
    made = Aggregation(job_spec(**keys), now=0.0)
    made.set_active(active, now=0.0)
    return made


def update_id(site: str, sequence: int) -> UpdateId:
    return UpdateId(site=site, incarnation="0" * 8, sequence=sequence)


def arrival(site: str, sequence: int = 0, *, base: int = 0, examples: int = 100, norm: float = 1.0) -> Arrival:
    return Arrival(
        update_id=update_id(site, sequence), base_version=base, effort=Effort(num_examples=examples), norm=norm
    )


def at_version(version: int, **keys: Any) -> Aggregation:
    made = aggregation("a", strategy="fedasync", **keys)
    for sequence in range(version):
        made.receive(arrival("a", sequence, base=sequence), now=float(sequence))
        made.commit(now=float(sequence))
    return made


def test_an_update_is_folded_with_its_weight() -> None:
    job = aggregation("a", "b", "c", "d")

    fact = job.receive(arrival("a"), now=7.0)

    assert fact == Folded(
        update_id=update_id("a", 0),
        base_version=0,
        num_examples=100,
        staleness=0,
        weight=10.0,
        clip=1.0,
        norm=1.0,
        at=7.0,
        effort=Effort(num_examples=100),
    )
    assert job.buffer == (update_id("a", 0),)
    assert job.updates == 1
    assert job.commit_due(now=7.0) is None


def test_a_full_buffer_becomes_a_version() -> None:
    job = aggregation("a", "b", "c", "d")
    job.receive(arrival("a", examples=100), now=0.0)
    job.receive(arrival("b", examples=400), now=1.0)

    assert job.commit_due(now=1.0) == "2 of 2 updates are in the buffer"
    fact = job.commit(now=2.0)

    assert fact == Committed(
        version=1,
        update_ids=(update_id("a", 0), update_id("b", 0)),
        normaliser=30.0,
        reason="2 of 2 updates are in the buffer",
        at=2.0,
        step=BEGIN * 2 / 4,
    )
    assert (job.version, job.buffer, job.updates) == (1, (), 2)


def test_staleness_is_counted_in_versions() -> None:
    job = at_version(3)

    fact = job.receive(arrival("b", base=0), now=9.0)

    assert isinstance(fact, Folded)
    assert fact.staleness == 3
    assert fact.weight == pytest.approx(0.6 * 0.5)


@pytest.mark.parametrize(
    ("base", "examples", "reason"),
    [
        (12, 1, "base version 12 is ahead of version 9"),
        (-1, 1, "base version -1 is negative"),
        (9, 0, "num_examples must be 1 to 1000000000000, got 0"),
        (9, 10**12 + 1, "num_examples must be 1 to 1000000000000, got 1000000000001"),
        (3, 1, "staleness 6 is above the job's max_staleness 5; train from version 9"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_before_its_body_is_read(
    base: int, examples: int, reason: str
) -> None:
    job = at_version(9, max_staleness=5)

    verdict = job.screen(update_id=update_id("b", 0), base_version=base, num_examples=examples)

    assert verdict == Refused(update_id=update_id("b", 0), reason=reason)
    assert job.receive(arrival("b", base=base, examples=examples), now=99.0) == verdict
    assert job.buffer == ()


def test_a_site_that_the_job_does_not_name_is_refused() -> None:
    job = aggregation("a", sites=["a", "c"])

    verdict = job.receive(arrival("b"), now=0.0)

    assert verdict == Refused(update_id=update_id("b", 0), reason="site b is not one of the job's sites: a, c")


def test_screen_changes_nothing_until_its_verdict_is_applied() -> None:
    job = aggregation("a")
    verdict = job.screen(update_id=update_id("a", 0), base_version=-1, num_examples=1)
    assert isinstance(verdict, Refused)
    assert job.screen(update_id=update_id("a", 0), base_version=0, num_examples=1) is None

    job.apply(verdict)

    assert job.screen(update_id=update_id("a", 0), base_version=0, num_examples=1) == Duplicate(
        update_id=update_id("a", 0)
    )
    assert job.site_stats("a").refused == 1


@pytest.mark.parametrize("norm", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_not_finite_is_refused(norm: float) -> None:
    job = aggregation("a")

    verdict = job.receive(arrival("a", norm=norm), now=0.0)

    assert verdict == Refused(update_id=update_id("a", 0), reason="delta has NaN or infinite values")
    assert job.buffer == ()


@pytest.mark.parametrize(
    ("norms", "norm", "reason"),
    [
        ([], 1e12, None),
        ([], 1.1e12, "delta has norm 1.1e+12: at most 1e+12 is folded from a"),
        ([], 1e30, "delta has norm 1e+30: at most 1e+12 is folded from a"),
        # two of its norms make no median yet
        ([2.0, 2.0], 1e12, None),
        ([1.0, 2.0, 3.0], 2e6, None),
        (
            [1.0, 2.0, 3.0],
            2.1e6,
            "delta has norm 2.1e+06: at most 2e+06 is folded from a, whose last 3 had a median of 2",
        ),
        # a site that has sent next to nothing may still learn
        ([0.0, 0.0, 0.0], 1e3, None),
        ([1e-9, 1e-9, 1e-9], 1.1e3, "at most 1e+03 is folded from a, whose last 3 had a median of 1e-09"),
        # nor is there room for more where all are long
        ([1e9, 1e9, 1e9], 1.1e12, "at most 1e+12 is folded from a"),
    ],
)
@pytest.mark.parametrize("clip", [None, 2.0])
def test_a_delta_that_is_absurdly_long_is_refused_clipped_or_not(
    norms: list[float], norm: float, reason: str | None, clip: float | None
) -> None:
    # given a site with some folded updates
    job = aggregation("a", "b", clip_to_own_median=clip)
    for sequence, known in enumerate(norms):
        job.receive(arrival("a", sequence, norm=known), now=0.0)
    # when a long one comes
    verdict = job.receive(arrival("a", 9, norm=norm), now=0.0)
    # then it is folded, or refused with the bound that it exceeds
    if reason is None:
        assert isinstance(verdict, Folded)
    else:
        assert isinstance(verdict, Refused)
        assert reason in verdict.reason
        assert job.site_stats("a").norms == tuple(norms)


def test_a_refused_update_that_comes_again_is_a_duplicate() -> None:
    job = aggregation("a")
    job.refuse(update_id("a", 0), reason="layout differs")

    assert job.refuse(update_id("a", 0), reason="layout differs") == Duplicate(update_id=update_id("a", 0))
    assert job.receive(arrival("a"), now=0.0) == Duplicate(update_id=update_id("a", 0))


def test_an_update_that_comes_again_after_its_commit_changes_nothing() -> None:
    job = at_version(1)

    assert job.receive(arrival("a", 0), now=5.0) == Duplicate(update_id=update_id("a", 0))
    assert (job.version, job.updates, job.buffer) == (1, 1, ())


def test_a_lost_site_costs_nobody_any_wait() -> None:
    job = aggregation("a", "b", "c", strategy="sync")
    job.receive(arrival("a"), now=0.0)
    job.receive(arrival("b"), now=1.0)
    assert job.commit_due(now=1.0) is None

    job.set_active(["a", "b"], now=2.0)

    assert job.commit_due(now=2.0) == "2 sites contributed"


def test_a_late_update_counts_in_the_version_under_way() -> None:
    job = aggregation("a", "b", strategy="sync", num_examples_power=1.0)
    job.receive(arrival("a"), now=0.0)
    job.commit(now=60.0)

    fact = job.receive(arrival("b", base=0), now=61.0)

    assert isinstance(fact, Folded)
    assert fact.staleness == 1
    assert fact.weight == pytest.approx(100 / math.sqrt(2))


def test_with_k_of_n_who_comes_late_counts_in_the_next_version_beside_k_others() -> None:
    job = aggregation("a", "b", "c", strategy={"kind": "sync", "k": 2})
    job.receive(arrival("a"), now=0.0)
    job.receive(arrival("b"), now=1.0)
    assert job.commit_due(now=1.0) == "2 sites contributed"
    job.commit(now=1.0)

    late = job.receive(arrival("c", base=0), now=2.0)

    assert isinstance(late, Folded)
    assert late.staleness == 1
    assert job.commit_due(now=2.0) is None
    job.receive(arrival("a", 1, base=1), now=3.0)
    assert job.commit(now=3.0).update_ids == (update_id("c", 0), update_id("a", 1))


@pytest.mark.parametrize(
    ("keys", "step"),
    [
        ({}, BEGIN * 4 / 12),
        ({"strategy": "calibrated"}, BEGIN * 4 / 12),
        ({"strategy": {"kind": "buffered", "buffer": 3}}, BEGIN * 3 / 12),
        ({"strategy": {"kind": "buffered", "buffer": 20}}, BEGIN),
        # the textbook's, and those that need no smaller step
        ({"strategy": {"kind": "buffered", "normalise": "buffer"}}, 1.0),
        ({"strategy": "fedasync"}, 1.0),
        ({"strategy": "sync"}, 1.0),
        ({"server_optimizer": {"lr": 0.7}}, 1.0),
        ({"server_optimizer": "adam"}, 1.0),
    ],
)
def test_without_a_server_lr_a_job_begins_with_half_of_what_fedavg_makes_of_as_many_updates(
    keys: dict[str, Any], step: float
) -> None:
    job = aggregation(*(f"s{n}" for n in range(12)), **keys)
    job.receive(arrival("s0"), now=0.0)

    assert job.commit(now=0.0, reason="told to").step == step


def test_a_site_that_has_left_is_remembered_until_it_was_silent_for_4_n_versions() -> None:
    # given two sites that send every 10 s and are remembered
    job = aggregation("a", "b", strategy={"kind": "calibrated", "buffer": 1})
    for now in (10.0, 20.0):
        for site in ("a", "b"):
            job.receive(arrival(site, int(now), base=job.version), now=now)
            job.commit(now=now)
    # when one goes away
    job.set_active(["a"], now=21.0)
    for number in range(1, 10):
        now = 20.0 + 10.0 * number
        job.receive(arrival("a", int(now), base=job.version), now=now)
        fact = job.commit(now=now)
        # then what it sent stands in for it in so many versions
        assert bool(fact.corrections) is (number == 9)
        assert ("b" in job.memory.sites) is (number < 9)
    # and what it sends when it is back is remembered anew
    job.receive(arrival("b", 999, base=job.version), now=120.0)
    assert job.commit(now=120.0).corrections == ()
    assert "b" in job.memory.sites


def test_auto_says_what_it_does_before_it_has_measured_and_after() -> None:
    job = aggregation("a", "b")
    assert job.chosen is not None
    assert job.chosen.startswith("buffered: until two sites have sent twice")
    for sequence, (site, now) in enumerate([("a", 0.0), ("b", 0.0), ("a", 1.0), ("b", 9.7)]):
        job.receive(arrival(site, sequence, base=job.version), now=now)
        if job.commit_due(now=now):
            job.commit(now=now)

    assert job.chosen == "calibrated: the slowest site, b, takes 9.7x the fastest, measured over 2 sites"
    assert aggregation("a", strategy="calibrated").chosen is None


def test_the_deadline_runs_from_the_last_commit_and_waits_for_a_first_update() -> None:
    job = aggregation("a", "b", strategy={"kind": "sync", "deadline_s": 60.0})
    assert job.next_due_at(now=0.0) is None
    job.receive(arrival("a", 0), now=10.0)
    assert job.next_due_at(now=10.0) == 60.0
    job.commit(now=60.0)
    job.receive(arrival("a", 1, base=1), now=61.0)
    assert job.next_due_at(now=61.0) == 120.0
    job.commit(now=120.0)

    assert job.commit_due(now=200.0) is None
    job.receive(arrival("a", 2, base=2), now=200.0)

    assert job.commit_due(now=200.0) == "the deadline of 60 s passed with 1 site"
    assert job.next_due_at(now=200.0) == 200.0


def test_the_deadline_runs_anew_when_sites_come_back_after_all_were_gone() -> None:
    job = aggregation(strategy={"kind": "sync", "deadline_s": 60.0})

    job.set_active(["a", "b"], now=500.0)
    job.receive(arrival("a"), now=510.0)

    assert job.commit_due(now=510.0) is None
    assert job.next_due_at(now=510.0) == 560.0


def test_flush_runs_from_the_first_update_in_the_buffer() -> None:
    job = aggregation("a", "b", "c", strategy={"kind": "buffered", "buffer": 3, "flush_after_s": 5.0})
    job.receive(arrival("a", 0), now=100.0)
    job.receive(arrival("a", 1), now=104.0)

    assert job.next_due_at(now=104.0) == 105.0
    assert job.commit_due(now=105.0) == "the first update waited 5 s"
    job.commit(now=105.0)
    job.receive(arrival("a", 2), now=200.0)
    assert job.next_due_at(now=200.0) == 205.0


def test_timers_run_anew_after_a_restart() -> None:
    job = aggregation("a", "b", "c", strategy={"kind": "buffered", "buffer": 3, "flush_after_s": 5.0})
    job.receive(arrival("a"), now=1e6)

    job.restart_timers(now=3.0)

    assert job.next_due_at(now=3.0) == 8.0


def test_a_commit_that_is_not_due_is_refused_unless_there_is_a_reason() -> None:
    job = aggregation("a", "b")
    with pytest.raises(ProtocolError, match=r"version 1 is not due: waiting for 2 more updates, buffer 0 of 2"):
        job.commit(now=0.0, reason="the job ends")
    job.receive(arrival("a"), now=0.0)
    with pytest.raises(ProtocolError, match=r"version 1 is not due: waiting for 1 more update, buffer 1 of 2"):
        job.commit(now=0.0)

    assert job.commit(now=0.0, reason="the job ends").reason == "the job ends"


def test_a_delta_is_clipped_to_the_sites_own_recent_median() -> None:
    job = aggregation("a", "b", clip_to_own_median=2.0)
    clips = []
    for sequence, norm in enumerate([1.0, 1.0, 100.0, 100.0, 1.0]):
        fact = job.receive(arrival("a", sequence, norm=norm), now=0.0)
        assert isinstance(fact, Folded)
        clips.append(fact.clip)
    other = job.receive(arrival("b", norm=100.0), now=0.0)

    assert clips == [1.0, 1.0, 1.0, 0.02, 1.0]  # three norms make a median
    assert isinstance(other, Folded)
    assert other.clip == 1.0


def test_a_site_that_sent_zeros_is_not_clipped_to_nothing() -> None:
    job = aggregation("a", clip_to_own_median=2.0)
    for sequence in range(4):
        job.receive(arrival("a", sequence, norm=0.0), now=0.0)

    fact = job.receive(arrival("a", 9, norm=5.0), now=0.0)

    assert isinstance(fact, Folded)
    assert fact.clip == 1.0


def test_site_stats_count_what_a_table_shows() -> None:
    job = at_version(4)
    for sequence, (base, now) in enumerate([(4, 100.0), (1, 110.0), (0, 130.0)]):
        job.receive(arrival("b", sequence, base=base), now=now)
    job.refuse(update_id("b", 9), reason="layout differs")

    stats = job.site_stats("b")

    assert (stats.folded, stats.refused, stats.last_at) == (3, 1, 130.0)
    assert stats.mean_staleness == pytest.approx(7 / 3)
    assert stats.running_staleness == pytest.approx(0.8 * (0.2 * 3) + 0.2 * 4)
    assert stats.period_s == pytest.approx(15)
    assert job.site_stats("nobody").mean_staleness == 0.0


def illegal_facts() -> list[Folded | Refused | Committed]:
    new = update_id("z", 0)
    fold = {"base_version": 1, "num_examples": 1, "staleness": 0, "weight": 1.0, "clip": 1.0, "norm": 1.0, "at": 0.0}
    commit: dict[str, Any] = {"normaliser": 1.0, "reason": "", "at": 0.0}
    waiting = (update_id("a", 1),)
    return [
        Folded(update_id=update_id("a", 0), **fold),  # type: ignore[arg-type]
        Folded(update_id=new, **fold | {"staleness": 1}),  # type: ignore[arg-type]
        Folded(update_id=new, **fold | {"base_version": 2, "staleness": -1}),  # type: ignore[arg-type]
        Folded(update_id=new, **fold | {"weight": 0.0}),  # type: ignore[arg-type]
        Folded(update_id=new, **fold | {"weight": math.nan}),  # type: ignore[arg-type]
        Folded(update_id=new, **fold | {"clip": 1.5}),  # type: ignore[arg-type]
        Refused(update_id=update_id("a", 1), reason="again"),
        Committed(version=1, update_ids=waiting, **commit),
        Committed(version=3, update_ids=waiting, **commit),
        Committed(version=2, update_ids=(), **commit),
        Committed(version=2, update_ids=(new,), **commit),
        Committed(version=2, update_ids=waiting, **commit | {"normaliser": 0.0}),
    ]


@pytest.mark.parametrize("fact", illegal_facts(), ids=repr)
def test_a_fact_that_does_not_fit_changes_nothing(fact: Folded | Refused | Committed) -> None:
    job = at_version(1)
    job.receive(arrival("a", 1, base=1), now=1.0)
    before = (job.version, job.updates, job.buffer, dict(job.all_stats))

    with pytest.raises(ProtocolError):
        job.apply(fact)

    assert (job.version, job.updates, job.buffer, dict(job.all_stats)) == before


def test_decided_ids_can_be_kept_elsewhere() -> None:
    class Ledger:
        def __init__(self) -> None:
            self.ids: list[str] = []

        def __contains__(self, update_id: object, /) -> bool:
            return str(update_id) in self.ids

        def add(self, update_id: UpdateId, /) -> None:
            self.ids.append(str(update_id))

    ledger = Ledger()
    job = Aggregation(job_spec(), now=0.0, seen=ledger)

    job.receive(arrival("a"), now=0.0)

    assert ledger.ids == ["a:00000000:0"]
    assert isinstance(job.receive(arrival("a"), now=0.0), Duplicate)
