"""How many sites a version comes from, and how many must be there while a job runs: `min_contributors`, `min_sites`."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.job.policy import Accept, Decline, SitePolicy
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival, Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError, ProtocolError

LOCAL = {"steps": 10, "batch_size": 1, "learning_rate": 0.1}
SEVEN = tuple("abcdefg")


def spec_of(**keys: Any) -> TrainingSpec:
    return TrainingSpec.parse({"name": "job", "task": "t", "local": LOCAL, "stop": {"versions": 1}} | keys)


class Job:
    def __init__(self, *sites: str, **keys: Any) -> None:
        self.aggregation = Aggregation(spec_of(**keys), now=0.0)
        self.sites_are(*sites)
        self.sent = 0

    def sites_are(self, *sites: str) -> None:
        self.aggregation.set_active(sites, now=0.0)

    def sends(self, site: str) -> None:
        self.sent += 1
        update_id = UpdateId(site=site, incarnation="0" * 8, sequence=self.sent)
        arrival = Arrival(
            update_id=update_id, base_version=self.aggregation.version, effort=Effort(num_examples=9), norm=1.0
        )
        assert isinstance(self.aggregation.receive(arrival, now=1.0), Folded)

    def due(self, *, now: float = 1e6) -> bool:
        return self.aggregation.commit_due(now=now) is not None


@pytest.mark.parametrize(
    "strategy",
    [
        "auto",
        {"kind": "auto", "flush_after_s": 1},
        "buffered",
        {"kind": "buffered", "flush_after_s": 1},
        "calibrated",
        {"kind": "calibrated", "flush_after_s": 1},
        "sync",
        {"kind": "sync", "k": 3, "deadline_s": 1},
    ],
)
def test_no_version_is_made_of_fewer_sites_than_were_promised_not_by_time_and_not_at_the_end(strategy: Any) -> None:
    # given two of three sites that have sent something, one of them often
    job = Job("a", "b", "c", strategy=strategy, min_contributors=3)
    for site in ("a", "a", "a", "b"):
        job.sends(site)
    # then no time makes a version due, and the end of the job none either
    assert not job.due()
    assert job.aggregation.next_due_at(now=1e6) is None
    assert job.aggregation.kept_back == "2 sites of the 3 that every version needs contributed"
    with pytest.raises(ProtocolError, match="is not due"):
        job.aggregation.commit(now=1.0, reason="the job ends")
    # and when the third has, it is
    job.sends("c")
    assert job.due()
    assert {u.site for u in job.aggregation.commit(now=1e6).update_ids} == {"a", "b", "c"}


def test_what_the_job_waits_for_is_said() -> None:
    job = Job("a", "b", "c", min_contributors=3)
    job.sends("a")
    assert job.aggregation.waiting_for() == (
        "waiting for 2 more sites (1 of the 3 in the buffer that every version needs)"
    )


def test_sites_that_a_robust_rule_leaves_out_are_no_contributors() -> None:
    # given a rule that leaves one of five out
    robust = {"kind": "multi_krum", "f": 1}
    job = Job(*SEVEN, min_contributors=5, robust=robust, min_sites=5)
    for site in SEVEN[:5]:
        job.sends(site)
    assert not job.due()
    job.sends("f")
    assert job.due()


def test_a_job_needs_as_many_sites_as_it_promises_contributors() -> None:
    assert spec_of(min_contributors=3).least_sites == 3
    assert spec_of(min_contributors=3, min_sites=4).least_sites == 4


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"sites": ["a", "b"]}, "min_contributors", "is 3, but sites lists only 2"),
        ({"strategy": "fedasync"}, "strategy", "makes a version of every update"),
        ({"strategy": {"kind": "sync", "k": 2}}, "strategy.k", "is 2, but min_contributors asks for 3 sites"),
        ({"strategy": {"kind": "auto", "buffer": 2}}, "strategy.buffer", "is 2, but min_contributors asks for 3 sites"),
        ({"strategy": {"kind": "buffered", "buffer": 1}}, "strategy.buffer", "is 1, but"),
        ({"strategy": {"kind": "calibrated", "buffer": 2}}, "strategy.buffer", "is 2, but"),
        ({"robust": {"kind": "median", "f": 1}, "min_sites": 5}, "robust.kind", "takes each number from a site or two"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_with_the_key_to_change(
    keys: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(JobSpecError) as caught:
        spec_of(min_contributors=3, **keys)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in problem.message


def test_a_site_of_the_release_before_is_offered_a_spec_that_it_can_read() -> None:
    assert not {"min_contributors", "keep"} & spec_of().to_offer().keys()
    assert spec_of(min_contributors=2).to_offer()["min_contributors"] == 2
    assert TrainingSpec.parse(spec_of(min_contributors=2).to_offer()) == spec_of(min_contributors=2)


def test_a_site_takes_part_only_where_it_is_one_of_so_many() -> None:
    policy = SitePolicy(site="va", installed_tasks=frozenset({"t"}), min_contributors=3)
    assert policy.decide(spec_of(min_contributors=2)) == Decline(
        reason="the job's versions may come from 2 sites, this site takes part from 3 sites on: set "
        "min_contributors: 3 in the job"
    )
    assert isinstance(policy.decide(spec_of(min_contributors=3)), Accept)


def test_a_running_job_with_fewer_sites_than_it_asks_for_makes_no_version_and_goes_on_when_they_are_back() -> None:
    # given a job that asks for two sites, with a buffer that is full
    job = Job("a", "b", min_sites=2, strategy={"kind": "buffered", "buffer": 1})
    job.sends("a")
    assert job.due()
    # when one of them is gone
    job.sites_are("a")
    # then no version is made, not at the end either, and it says why
    assert not job.due()
    assert job.aggregation.next_due_at(now=5.0) is None
    assert job.aggregation.kept_back == "1 of 2 sites is there"
    assert job.aggregation.waiting_for().startswith("paused: 1 of 2 sites is there; ")
    # and it goes on with what it had when the site is back
    job.sites_are("a", "b")
    assert job.due()
