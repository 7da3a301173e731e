"""Guards in a job: who is clipped, who is told to rebase."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival, Folded
from fedbus.core.spec.training import TrainingSpec


class Job:
    """A job whose sites send norms; K = 2 of 4 active sites, so that the soft limit is 40 versions."""

    def __init__(self, **keys: Any) -> None:
        local = {"steps": 10, "batch_size": 1, "learning_rate": 0.1}
        base = {"name": "job", "task": "t", "local": local, "stop": {"versions": 1}, "clip_to_own_median": None}
        spec = TrainingSpec.parse(base | {"strategy": {"kind": "buffered", "buffer": 2}} | keys)
        self.aggregation = Aggregation(spec, now=0.0)
        self.aggregation.set_active({"a", "b", "c", "d"}, now=0.0)
        self.sent = 0

    def sends(self, site: str, norm: float, *, staleness: int = 0) -> Folded:
        self.sent += 1
        arrival = Arrival(
            update_id=UpdateId(site=site, incarnation="0" * 8, sequence=self.sent),
            base_version=self.aggregation.version - staleness,
            effort=Effort(num_examples=10),
            norm=norm,
        )
        fact = self.aggregation.receive(arrival, now=1.0)
        assert isinstance(fact, Folded)
        if self.aggregation.commit_due(now=1.0):
            self.aggregation.commit(now=1.0)
        return fact

    def reaches(self, version: int) -> None:
        while self.aggregation.version < version:
            self.sends("b", 1.0)


def test_a_long_delta_is_clipped_against_the_other_sites_only_when_the_job_says_so():
    for factor, expected in ((None, 1.0), (4.0, 0.2)):
        job = Job(clip_to_buffer=factor)
        job.sends("b", 1.0)
        job.sends("c", 1.0)
        assert job.sends("a", 20.0).clip == expected


def test_a_liar_is_clipped_though_its_own_norms_are_long():
    # given a site that has always sent long deltas
    job = Job(clip_to_buffer=4.0, clip_to_own_median=2.0)
    job.sends("b", 1.0)
    job.sends("c", 1.0)
    found = [job.sends("a", 100.0).clip for _ in range(5)]
    # then each of them is clipped to what the others send
    assert found == [0.04] * 5


def test_a_returner_is_told_the_oldest_version_that_still_counts():
    job = Job()
    job.reaches(300)
    assert job.sends("a", 1.0, staleness=40).rebase is None
    version = job.aggregation.version
    assert job.sends("a", 1.0, staleness=version).rebase == version - 40


@pytest.mark.parametrize(("own", "expected"), [((2.0, 2.0, 2.0), 0.2), ((), 0.1)], ids=["its own", "the others'"])
def test_the_delta_of_a_returner_is_no_longer_than_usual(own, expected):
    # given a site that was away for hundreds of versions
    job = Job()
    for norm in own:
        job.sends("a", norm)
    job.reaches(300)
    # when a long update comes from back then
    assert job.sends("a", 10.0, staleness=290).clip == expected
    # then a fresh one of that length is not clipped, for the job does not ask for it
    assert job.sends("a", 10.0).clip == 1.0
