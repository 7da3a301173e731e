"""FADAS: the step of a commit shrinks with the stalest update in its buffer."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival
from fedbus.core.rules.server_step import delay_adaptive
from fedbus.core.spec.training import TrainingSpec


@pytest.mark.parametrize(
    ("most_stale", "tau_c", "step"),
    [(0, 1, 1.0), (1, 1, 1.0), (2, 1, 0.5), (10, 1, 0.1), (10, 10, 1.0), (11, 10, 1 / 11), (0, 0, 1.0), (1, 0, 1.0)],
)
def test_the_step_is_one_over_the_staleness_past_tau_c(most_stale: int, tau_c: int, step: float) -> None:
    assert delay_adaptive(most_stale, tau_c=tau_c) == step


def steps(**optimizer: Any) -> list[float]:
    """Steps of four versions of two updates each, of which the second is always from version 0."""
    spec = TrainingSpec.parse(
        {
            "name": "heart",
            "task": "t",
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
            "strategy": {"kind": "buffered", "buffer": 2},
            "server_optimizer": optimizer,
            "stop": {"versions": 9},
        }
    )
    aggregation = Aggregation(spec, now=0.0)
    aggregation.set_active({"mercy", "ucsf"}, now=0.0)
    found = []
    for version in range(4):
        for site, base in (("mercy", version), ("ucsf", 0)):
            update_id = UpdateId(site=site, incarnation="0123abcd", sequence=version)
            aggregation.receive(
                Arrival(update_id=update_id, base_version=base, effort=Effort(num_examples=1), norm=1.0), now=1.0
            )
        found.append(aggregation.commit(now=1.0).step)
    return found


def test_the_stalest_update_of_a_buffer_sets_its_step() -> None:
    assert steps(kind="fadas") == [1.0, 1.0, 1 / 2, 1 / 3]
    assert steps(kind="fadas", tau_c=2) == [1.0, 1.0, 1.0, 1 / 3]
    assert steps(kind="adam") == [1.0, 1.0, 1.0, 1.0]
