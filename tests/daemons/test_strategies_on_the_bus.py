"""Each way to aggregate and to code, once through all daemons."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def two_hospitals(manned_house):
    """A federation with two sites, which trains one job after the other."""
    for name in ("cleveland", "hungary"):
        manned_house.start_site(name, step_delay_s=0.02)
    return manned_house


BOTH = {"min_sites": 2}
WIDE = {"task_config": {"numel": 20_000}}


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"strategy": "auto", "codec": {"up": "int8", "down": "int8"}}, id="auto, int8"),
        pytest.param(
            {"strategy": "calibrated", "codec": {"up": "int4", "down": "int4"}} | WIDE | BOTH, id="calibrated, int4"
        ),
        pytest.param(
            {"strategy": {"kind": "fedasync", "mixing": 0.5}, "codec": {"up": "topk", "down": "int4"}} | WIDE,
            id="fedasync, topk",
        ),
        pytest.param(
            {"strategy": {"kind": "sync"}, "server_optimizer": {"kind": "adam", "lr": 0.01}} | BOTH, id="sync, adam"
        ),
    ],
)
def test_job_of_every_kind_finishes_without_a_refusal_or_a_resync(two_hospitals, keys):
    # when a job of this kind runs
    job = two_hospitals.submit(stop={"versions": 4}, **keys)
    two_hospitals.ended(job)
    # then every site could follow every version, and no update in time was refused
    events = [e for daemon in two_hospitals.running.daemons for e in daemon.events() if e.get("job") == job]
    assert not [event for event in events if event["event"] in ("resync", "trainer-trouble")]
    assert two_hospitals.refused_in_time(job) == []
    assert [fact.version for fact in two_hospitals.versions(job)] == [1, 2, 3, 4]


def test_late_update_of_a_synchronous_job_counts_in_the_next_version(house):
    # given a site that takes longer than the deadline
    house.start_aggregator()
    house.start_site("cleveland", step_delay_s=0.02)
    house.start_site("hungary", step_delay_s=0.6)
    # when a synchronous job runs
    job = house.submit(min_sites=2, strategy={"kind": "sync", "deadline_s": 0.5}, stop={"versions": 6})
    house.ended(job)
    # then nobody waited for it, and what it sent was folded, weighted by its staleness
    late = [fact for fact in house.folded(job) if fact.update_id.site == "hungary"]
    assert late
    assert min(fact.staleness for fact in late) > 0
    assert any("deadline" in fact.reason for fact in house.versions(job))
    assert {str(fact.update_id) for fact in late} <= {str(u) for fact in house.versions(job) for u in fact.update_ids}
