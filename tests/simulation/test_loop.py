from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fedbus.core.protocol.frames import Code
from fedbus.errors import LayoutError
from fedbus.simulation import Presence, SimulatedSite, Simulation, constant
from fedbus.simulation.trainer import Trainer
from fedbus.tensors.codec import encode

from .conftest import Counting, MakeSite, MakeSpec


def test_two_sites_follow_the_schedule_that_one_makes_by_hand(make_spec: MakeSpec, make_site: MakeSite) -> None:
    """
    t 1  fast: update 1 of version 0        buffer 1
    t 2  fast: update 2 of version 0        buffer 2 → version 1 = 0 + mean(1, 1)
    t 3  slow: update 1 of version 0, s 1   buffer 1, slow goes on from version 1
         fast: update 3 of version 1        buffer 2 → version 2 = 1 + mean(1, 1)
    """
    sites = [make_site("fast", 1.0), make_site("slow", 3.0)]

    result = Simulation(make_spec(), sites, seed=0).run(until_s=3.5)

    curve = [(point.t, point.version, point.updates, point.metrics["x"]) for point in result.points]
    assert curve == [(0, 0, 0, 0.0), (1, 0, 1, 0.0), (2, 1, 2, 1.0), (3, 2, 4, 2.0), (3.5, 2, 4, 2.0)]
    assert (result.sites["fast"].folded, result.sites["fast"].mean_staleness) == (3, 0.0)
    assert (result.sites["slow"].folded, result.sites["slow"].mean_staleness) == (1, 1.0)
    assert result.staleness == {"mean": 0.25, "p95": 1.0, "max": 1.0}
    assert result.final_params.tolist() == [2.0]


def test_a_site_trains_from_the_newest_version_of_the_moment_it_begins(
    make_spec: MakeSpec, make_site: MakeSite
) -> None:
    sites = [make_site("fast", 1.0), make_site("slow", 2.5)]
    spec = make_spec(strategy={"kind": "buffered", "buffer": 1})

    result = Simulation(spec, sites, seed=0).run(until_s=5.1)

    # versions 1 and 2 at t 1 and 2; the slow one's update makes 3 at t 2.5, and its next one, from 3, comes after 4
    # and 5 (at t 5 it was foreseen before that of the fast one)
    assert result.sites["slow"].mean_staleness == 2.0
    assert result.sites["fast"].mean_staleness == pytest.approx(2 / 5)
    assert result.version == result.updates == 7


def test_a_synchronous_site_waits_for_the_next_version(make_spec: MakeSpec, make_site: MakeSite) -> None:
    sites = [make_site("fast", 1.0), make_site("slow", 3.0)]

    result = Simulation(make_spec(strategy="sync"), sites, seed=0).run(until_s=9.5)

    assert [point.version for point in result.points[::3]] == [0, 1, 2, 3]
    assert result.sites["fast"].folded == result.sites["slow"].folded == 3
    assert result.sites["fast"].trainings == 4
    assert result.staleness["max"] == 0


def test_the_deadline_of_a_synchronous_round_is_in_virtual_seconds(make_spec: MakeSpec, make_site: MakeSite) -> None:
    sites = [make_site("fast", 1.0), make_site("slow", 100.0)]
    spec = make_spec(strategy={"kind": "sync", "deadline_s": 4.0})

    result = Simulation(spec, sites, seed=0).run(until_s=9.0)

    assert [point.version for point in result.points] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_latency_comes_on_top_of_training_both_ways(make_spec: MakeSpec, make_site: MakeSite) -> None:
    spec = make_spec(strategy={"kind": "buffered", "buffer": 1})

    result = Simulation(spec, [make_site("far", 1.0)], seed=0, latency_s=0.5).run(until_s=4.5)

    assert result.updates == 2


def test_a_budget_in_seconds_gives_a_fast_site_more_steps(make_spec: MakeSpec, make_site: MakeSite) -> None:
    local = {"seconds": 1.0, "batch_size": 1, "learning_rate": 1.0}
    spec = make_spec(local=local, strategy={"kind": "buffered", "buffer": 1}, stop={"versions": 1})

    def steps(delay_s: float) -> float:  # of ten steps
        return float(Simulation(spec, [make_site("a", delay_s)], seed=0).run().final_params)

    assert steps(10.0) == 1
    assert steps(1.25) == 8


def test_a_slow_site_of_a_time_boxed_job_makes_fewer_steps_in_as_much_less_time(
    make_spec: MakeSpec, make_site: MakeSite
) -> None:
    local = {"steps": 10, "batch_size": 1, "learning_rate": 1.0, "time_boxed": True}
    spec = make_spec(local=local, strategy={"kind": "buffered", "buffer": 1})

    result = Simulation(spec, [make_site("fast", 1.0), make_site("slow", 5.0)], seed=0).run(until_s=10.5)

    # the slow one: ten steps until t 5, from then on two steps in one second
    assert (result.sites["fast"].folded, result.sites["slow"].folded) == (10, 1 + 5)


def test_bytes_are_those_of_the_frames(make_spec: MakeSpec, make_site: MakeSite) -> None:
    spec = make_spec(strategy={"kind": "buffered", "buffer": 1}, stop={"versions": 3})
    layout = Trainer(spec, Counting()).layout
    frame_bytes = sum(map(len, encode(torch.ones(1), layout, Code.FP32, seed=0)))

    result = Simulation(spec, [make_site("a")], seed=0).run()

    assert result.bytes_up == 3 * frame_bytes
    # a snapshot to begin with, then the deltas of versions 1 and 2; nobody took version 3
    assert result.bytes_down == 3 * frame_bytes


@pytest.mark.parametrize(
    ("stop", "ended_at", "reason"),
    [
        ({"versions": 2}, 4.0, "version 2 of 2"),
        ({"updates": 3}, 3.0, "3 of 3 updates"),
        ({"wall_time_s": 2.5}, 2.5, "wall time"),
        ({"target": {"metric": "x", "at_least": 2.0}}, 8.0, "reached the target"),  # the slow one's score is still 0
    ],
)
def test_the_stop_rules_of_the_job_end_it(
    stop: dict[str, object], ended_at: float, reason: str, make_spec: MakeSpec, make_site: MakeSite
) -> None:
    spec = make_spec(stop=stop, strategy={"kind": "buffered", "buffer": 2})

    result = Simulation(spec, [make_site("a", 1.0), make_site("b", 50.0)], seed=0).run(until_s=40.0)

    assert result.ended_at == ended_at
    assert reason in result.reason


def test_the_job_begins_when_enough_sites_are_there(make_spec: MakeSpec, make_site: MakeSite) -> None:
    sites = [make_site("a"), make_site("b", presence=Presence(joins_at=5.0))]

    result = Simulation(make_spec(min_sites=2, stop={"versions": 1}), sites, seed=0).run()

    assert result.ended_at == 6.0


def test_a_site_that_joins_late_trains_from_then_on(make_spec: MakeSpec, make_site: MakeSite) -> None:
    spec = make_spec(strategy={"kind": "buffered", "buffer": 1})
    sites = [make_site("early"), make_site("late", presence=Presence(joins_at=5.25))]

    result = Simulation(spec, sites, seed=0).run(until_s=7.5)

    assert result.sites["late"].folded == 2
    assert result.sites["late"].mean_staleness == 1.0  # one of the other between base and arrival


def test_a_site_that_leaves_is_not_waited_for_and_its_update_is_lost(make_spec: MakeSpec, make_site: MakeSite) -> None:
    sites = [make_site("stays"), make_site("leaves", 3.0, presence=Presence(leaves_at=2.0))]

    result = Simulation(make_spec(strategy="sync"), sites, seed=0).run(until_s=4.5)

    assert result.version == 3  # at t 2, 3 and 4
    assert (result.sites["leaves"].folded, result.sites["leaves"].lost) == (0, 1)


def test_nothing_is_waited_for_when_everybody_has_left(make_spec: MakeSpec, make_site: MakeSite) -> None:
    result = Simulation(make_spec(), [make_site("a", presence=Presence(leaves_at=1.5))], seed=0).run()

    assert "no site" in result.reason
    assert result.ended_at < 10


def test_a_site_that_is_away_sends_when_it_is_back(make_spec: MakeSpec, make_site: MakeSite) -> None:
    spec = make_spec(strategy={"kind": "buffered", "buffer": 1})
    away = Presence(away_share=0.5, period_s=2.0)

    churned = Simulation(spec, [make_site("a"), make_site("b", presence=away)], seed=1).run(until_s=400.0)

    assert churned.sites["b"].lost == 0
    assert churned.sites["b"].folded == pytest.approx(200, rel=0.4)
    assert churned.staleness["max"] > 5  # some update waited


def test_churn_takes_the_share_of_time_that_was_asked_for() -> None:
    import random

    changes = Presence(away_share=0.25, period_s=1.0).changes(random.Random(3))
    there_s, came_at, at = 0.0, 0.0, 0.0
    while at < 20_000:
        at, there = next(changes)
        there_s, came_at = (there_s, at) if there else (there_s + at - came_at, came_at)

    assert there_s / at == pytest.approx(0.75, abs=0.02)


def test_an_attacker_sends_what_the_scenario_makes_of_its_delta(make_spec: MakeSpec, make_site: MakeSite) -> None:
    def attack(site: str, delta: Tensor) -> Tensor:
        return -3 * delta if site == "bad" else delta

    sites = [make_site("good"), make_site("bad")]

    result = Simulation(make_spec(stop={"versions": 1}), sites, seed=0, transform=attack).run()

    assert result.final_params.tolist() == [(1 - 3) / 2]


class Mixing:
    """FedAsync over whole models, as a peer's object would do it."""

    wait_for_new_version = False

    def __init__(self) -> None:
        self.model = torch.zeros(1)
        self.calls: list[tuple[str, float, float, int, int, float]] = []

    def on_update(  # noqa: PLR0917 - the shape of the protocol
        self, site: str, local_params: Tensor, delta: Tensor, base_version: int, num_examples: int, now: float
    ) -> Tensor | None:
        self.calls.append((site, float(local_params), float(delta), base_version, num_examples, now))
        self.model = (self.model + local_params) / 2
        return self.model


def test_a_foreign_rule_runs_in_the_same_loop(make_spec: MakeSpec, make_site: MakeSite) -> None:
    rule = Mixing()
    sites = [make_site("fast", 1.0, examples=7), make_site("slow", 2.5)]

    result = Simulation(make_spec(), sites, seed=0, rule=rule).run(until_s=2.75)

    assert rule.calls == [
        ("fast", 1.0, 1.0, 0, 7, 1.0),  # model 0.5
        ("fast", 1.5, 1.0, 1, 7, 2.0),  # model 1.0
        ("slow", 1.0, 1.0, 0, 1, 2.5),  # model 1.0
    ]
    assert (result.version, result.updates, result.final_params.tolist()) == (3, 3, [1.0])
    assert result.sites["slow"].mean_staleness == 2.0


def test_a_foreign_rule_that_waits_is_waited_for(make_spec: MakeSpec, make_site: MakeSite) -> None:
    class Both(Mixing):
        wait_for_new_version = True

        def on_update(self, *arguments: object) -> Tensor | None:  # type: ignore[override]
            self.calls.append(arguments)  # type: ignore[arg-type]
            return torch.ones(1) * len(self.calls) if len(self.calls) % 2 == 0 else None

    sites = [make_site("fast", 1.0), make_site("slow", 3.0)]

    result = Simulation(make_spec(), sites, seed=0, rule=Both()).run(until_s=6.5)

    assert (result.version, result.sites["fast"].folded, result.sites["slow"].folded) == (2, 2, 2)


def test_training_that_diverges_ends_the_run_with_its_reason(make_spec: MakeSpec, make_site: MakeSite) -> None:
    result = Simulation(make_spec(), [make_site("a", step=math.inf)], seed=0).run(until_s=5)

    assert result.reason.startswith("a: params are not finite after 1 steps")


def test_a_site_whose_task_makes_another_model_is_refused(make_spec: MakeSpec, make_site: MakeSite) -> None:
    class Other(Counting):
        def model(self) -> nn.Module:
            return nn.Linear(2, 2)

    odd = SimulatedSite(name="odd", task=Other(), delay=constant(1.0))

    with pytest.raises(LayoutError, match="odd"):
        Simulation(make_spec(), [make_site("a"), odd], seed=0)
