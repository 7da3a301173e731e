"""A site comes back with an update from hundreds of versions ago."""

from __future__ import annotations

import random
from collections.abc import Iterator
from statistics import fmean

from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import Presence, SimulatedSite, Simulation, delays_of, site_names
from fedbus.simulation.sites import make_tasks

BACK_S = 200.0


class Away(Presence):
    """There for the first 4 s, and again from BACK_S on."""

    def changes(self, rng: random.Random) -> Iterator[tuple[float, bool]]:
        yield from ((0.0, True), (4.0, False), (BACK_S, True), (1e9, False))


def test_an_update_from_two_hundred_versions_ago_moves_accuracy_by_less_than_half_a_point() -> None:
    spec = TrainingSpec.parse(
        {
            "name": "returner",
            "task": "digits",
            "task_config": {"shared_test": True},
            "local": {"steps": 10, "batch_size": 16, "learning_rate": 0.1, "evaluate": False},
            "stop": {"wall_time_s": BACK_S + 8},
        }
    )
    names = site_names(spec, 12)
    tasks, delays = make_tasks(spec, names), delays_of("geometric:10", 12, seed=0)
    sites = [
        SimulatedSite(name=name, task=tasks[name], delay=delay, presence=Away() if number == 8 else Presence())
        for number, (name, delay) in enumerate(zip(names, delays, strict=True))
    ]

    result = Simulation(spec, sites, seed=0, evaluate_every_s=0.5, scorers=names[:1]).run()

    assert result.staleness["max"] > 200
    assert result.refused == 0  # it is clipped and folded, not thrown away
    before = fmean(p.metrics["accuracy"] for p in result.points if BACK_S - 8 <= p.t < BACK_S)
    after = fmean(p.metrics["accuracy"] for p in result.points if p.t >= BACK_S)
    assert abs(after - before) < 0.005
