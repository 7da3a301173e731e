"""FedNova in a job: what updates of unequal numbers of local steps come to."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival, Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError

STRATEGIES: list[Any] = ["auto", "sync", "buffered", {"kind": "buffered", "rate_correction": 1.0}]


def job_spec(**keys: Any) -> TrainingSpec:
    local = {"steps": 100, "time_boxed": True, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "job", "task": "t", "local": local, "stop": {"versions": 1}} | keys)


def mean_delta(sent: dict[str, tuple[int, int, float]], **keys: Any) -> float:
    """One version of sites that send (examples, steps, delta of one coordinate): its mean delta."""
    aggregation = Aggregation(job_spec(**keys), now=0.0)
    aggregation.set_active(sent, now=0.0)
    total = 0.0
    for site, (examples, steps, delta) in sent.items():
        arrival = Arrival(
            update_id=UpdateId(site=site, incarnation="0" * 8, sequence=0),
            base_version=0,
            effort=Effort(num_examples=examples, steps=steps),
            norm=abs(delta),
        )
        fact = aggregation.receive(arrival, now=1.0)
        assert isinstance(fact, Folded)
        total += fact.weight * fact.clip * delta
    fact = aggregation.commit(now=1.0, reason="the test says so")
    return total / fact.normaliser


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unequal_steps_are_normalised_as_in_fednova(strategy):
    sent = {"a": (100, 100, 5.0), "b": (400, 25, -1.0), "c": (100, 50, 2.0)}
    # tau sum(w delta / a) / sum(w) with w = sqrt(examples), tau = sum(w a) / sum(w)
    weights = {"a": 10.0, "b": 20.0, "c": 10.0}
    tau = sum(weights[s] * sent[s][1] for s in sent) / 40.0
    expected = tau * sum(weights[s] * sent[s][2] / sent[s][1] for s in sent) / 40.0
    assert mean_delta(sent, strategy=strategy) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_steps_change_nothing(strategy):
    sent = {"a": (100, 40, 5.0), "b": (400, 40, -1.0), "c": (100, 40, 2.0)}
    boxed = mean_delta(sent, strategy=strategy)
    whole = {"steps": 100, "batch_size": 1, "learning_rate": 0.1}
    assert boxed == pytest.approx(mean_delta(sent, strategy=strategy, local=whole), rel=1e-12)


def test_a_site_that_claims_one_step_gains_no_more_than_the_smallest_budget_gives():
    honest = {"a": (100, 100, 1.0), "b": (100, 20, 1.0)}
    lying = {"a": (100, 100, 1.0), "b": (100, 1, 1.0)}
    assert mean_delta(lying) == mean_delta(honest)


def test_without_time_boxes_a_site_that_trained_less_counts_as_it_is():
    # given a budget in seconds, of which a slow site makes fewer steps on purpose
    local = {"seconds": 5.0, "batch_size": 1, "learning_rate": 0.1}
    sent = {"a": (100, 100, 4.0), "b": (100, 20, 1.0)}
    assert mean_delta(sent, local=local, strategy="buffered") == pytest.approx(2.5)


def test_time_boxes_and_a_memory_of_deltas_do_not_go_together():
    with pytest.raises(JobSpecError) as caught:
        job_spec(strategy="calibrated")
    (problem,) = caught.value.problems
    assert problem.path == "strategy"
    assert "use auto" in problem.message
