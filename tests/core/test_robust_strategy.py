"""Robust rules in a job: when the buffer is committed, what is committed, what the spec refuses."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival, Folded
from fedbus.core.rules.facts import Combination, Term
from fedbus.core.rules.robust import without
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError, ProtocolError

SITES = ("a", "b", "c", "d", "e", "f")


def job_spec(**keys: Any) -> TrainingSpec:
    local = {"steps": 10, "batch_size": 1, "learning_rate": 0.1}
    base = {"name": "job", "task": "t", "local": local, "stop": {"versions": 1}, "min_sites": 5}
    return TrainingSpec.parse(base | {"strategy": {"kind": "buffered"}, "robust": {"kind": "median", "f": 1}} | keys)


class Job:
    """A job with robust rules for one liar, whose sites send numbers."""

    def __init__(self, *active: str, **keys: Any) -> None:
        self.aggregation = Aggregation(job_spec(**keys), now=0.0)
        self.aggregation.set_active(active or SITES, now=0.0)
        self.sent = 0

    def sends(self, *sites: str, examples: int = 100, norm: float = 1.0, now: float = 1.0) -> list[UpdateId]:
        found = []
        for site in sites:
            self.sent += 1
            update_id = UpdateId(site=site, incarnation="0" * 8, sequence=self.sent)
            arrival = Arrival(
                update_id=update_id,
                base_version=self.aggregation.version,
                effort=Effort(num_examples=examples),
                norm=norm,
            )
            assert isinstance(self.aggregation.receive(arrival, now=now), Folded)
            found.append(update_id)
        return found


def gram(*points: float) -> list[list[float]]:
    """Inner products of deltas with one coordinate each."""
    return [[x * y for y in points] for x in points]


# ------------------------------------------------------------------ when


def test_a_version_needs_two_f_plus_three_distinct_sites():
    job = Job()
    job.sends("a", "b", "c", "d", "a", "b", "a", "a")
    assert job.aggregation.commit_due(now=99.0) is None
    assert job.aggregation.waiting_for() == (
        "waiting for 1 more site (4 of the 5 in the buffer that median with f = 1 needs)"
    )
    job.sends("e")
    assert job.aggregation.commit_due(now=99.0) is not None


def test_no_deadline_commits_what_nobody_can_judge():
    # given a synchronous job whose deadline passes with too few sites
    job = Job(strategy={"kind": "sync", "deadline_s": 5.0})
    job.sends("a", "b", "c", "d")
    assert job.aggregation.commit_due(now=100.0) is None
    assert job.aggregation.next_due_at(now=100.0) is None
    # when a fifth site has contributed, then the deadline counts
    job.sends("e")
    assert job.aggregation.commit_due(now=4.0) is None
    assert job.aggregation.next_due_at(now=4.0) == 5.0


def test_a_job_with_too_few_sites_says_so():
    job = Job("a", "b", "c")
    job.sends("a")
    assert job.aggregation.waiting_for().endswith("; only 3 sites of at least 5 are there")


@pytest.mark.parametrize("kind", ["multi_krum", "trimmed_mean", "median"])
def test_a_job_that_ends_too_early_moves_nothing(kind):
    job = Job(robust={"kind": kind, "f": 1})
    job.sends("b", "a", "b")
    fact = job.aggregation.commit(now=1.0, reason="the job ends")
    assert fact.combination == Combination(rule="mean", terms=(), excluded=("a", "b"))


# ------------------------------------------------------------------ what


def test_auto_has_no_memory_that_could_carry_a_liars_delta():
    # given sites of very different speed, for which auto would choose the calibrated rule
    job = Job(strategy="auto")
    assert job.aggregation.chosen is not None
    assert job.aggregation.chosen.startswith("buffered: median judges what is in the buffer")
    for now in range(1, 5):
        for site in "abcde":
            job.sends(site, now=now * (10.0 if site == "a" else 1.0))
        fact = job.aggregation.commit(now=40.0)
        # then it stays buffered, and the first version says why
        assert (fact.rule, fact.remembers) == ("buffered" if now == 1 else "", False)
        assert fact.combination is not None


@pytest.mark.parametrize("kind", ["trimmed_mean", "median"])
def test_rules_by_coordinate_take_one_delta_of_each_site_without_weights(kind):
    job = Job(robust={"kind": kind, "f": 1}, clip_to_own_median=None)
    ids = job.sends("a", "b", "c", "d", "a", "e", examples=7)
    fact = job.aggregation.commit(now=1.0)
    assert fact.combination == Combination(
        rule=kind,
        trim=1,
        terms=(
            Term(update_id=ids[0], factor=0.5),
            Term(update_id=ids[4], factor=0.5),
            *(Term(update_id=update_id, factor=1.0) for update_id in (*ids[1:4], ids[5])),
        ),
    )


def test_multi_krum_keeps_those_that_agree_by_their_weights():
    # given five sites, one of which says the contrary of the others
    job = Job(robust={"kind": "multi_krum", "f": 1}, num_examples_power=1.0)
    ids = [job.sends(site, examples=examples)[0] for site, examples in zip("abcde", (1, 2, 3, 4, 5), strict=True)]
    compared = job.aggregation.to_compare(now=1.0)
    assert compared is not None
    assert [term.factor for term in compared.terms] == [1.0] * 5  # measured as they are, not weighted
    # when distances have been measured
    fact = job.aggregation.commit(now=1.0, gram=gram(1.0, 1.1, -3.0, 0.9, 1.0))
    # then it is out, and the others count by their examples
    assert fact.combination is not None
    assert fact.combination.excluded == ("c",)
    assert [(t.update_id, t.factor) for t in fact.combination.terms] == [
        (ids[0], 1.0),
        (ids[1], 2.0),
        (ids[3], 4.0),
        (ids[4], 5.0),
    ]
    assert fact.normaliser == 12.0


def test_multi_krum_does_not_commit_blindly():
    job = Job(robust={"kind": "multi_krum", "f": 1})
    job.sends("a", "b", "c", "d", "e")
    with pytest.raises(ProtocolError, match="inner products"):
        job.aggregation.commit(now=1.0)
    assert job.aggregation.version == 0


def test_what_is_left_without_a_site_is_normalised_by_the_others():
    job = Job(robust={"kind": "multi_krum", "f": 1}, num_examples_power=1.0)
    for site, examples in zip("abcde", (1, 2, 3, 4, 5), strict=True):
        job.sends(site, examples=examples)
    entries = job.aggregation._entries
    fact = job.aggregation.commit(now=1.0, gram=gram(1.0, 1.1, -3.0, 0.9, 1.0))
    assert fact.combination is not None
    others = [entry for entry in entries if entry.update_id.site != "e"]
    normaliser, left = without(fact.combination, others, {"e"})
    assert normaliser == 1.0 + 2.0 + 4.0
    assert [term.update_id.site for term in left.terms] == ["a", "b", "d"]
    assert without(fact.combination, [], set("abde"))[1].terms == ()


def test_without_sites_a_trimmed_mean_trims_less():
    combination = Combination(
        rule="trimmed_mean",
        trim=1,
        terms=tuple(
            Term(update_id=UpdateId(site=site, incarnation="0" * 8, sequence=1), factor=1.0) for site in "abcde"
        ),
    )
    assert without(combination, [], {"a", "b"})[1].trim == 1
    assert without(combination, [], {"a", "b", "c"})[1].trim == 0


# ------------------------------------------------------------------ the spec


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"min_sites": 4}, "min_sites", "is 4, but median with f = 1 needs 5 sites"),
        ({"robust": {"kind": "multi_krum"}}, "min_sites", "is 5, but multi_krum with f = 2 needs 7 sites"),
        ({"strategy": {"kind": "sync", "k": 3}}, "strategy.k", "is 3, but median with f = 1 needs 5 sites"),
        ({"strategy": "fedasync"}, "strategy", "makes a version of every update"),
        ({"strategy": "calibrated"}, "strategy", "remembers what sites sent"),
        ({"strategy": {"kind": "buffered", "normalise": "buffer"}}, "strategy", "use normalise: weights"),
        (
            {"local": {"steps": 10, "time_boxed": True, "batch_size": 1, "learning_rate": 0.1}},
            "local.time_boxed",
            "deltas of unlike lengths",
        ),
        ({"robust": {"kind": "multi_krum", "f": 0}}, "robust.f", ""),
        ({"robust": {"kind": "krum"}}, "robust.kind", ""),
    ],
)
def test_what_cannot_be_robust_is_refused_with_path_and_reason(keys, path, words):
    with pytest.raises(JobSpecError) as caught:
        job_spec(**keys)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert words in problem.message


def test_robust_in_short_and_off_by_default():
    assert (
        job_spec(robust="multi_krum", min_sites=7).robust
        == job_spec(robust={"kind": "multi_krum", "f": 2}, min_sites=7).robust
    )
    assert job_spec(robust=None).robust is None
