from __future__ import annotations

from typing import Any

import torch

from fedbus.simulation import Point, Result
from fedbus.simulation.result import staleness_figures


def result_of(*accuracies: float) -> Result:
    points = tuple(
        Point(t=float(t), version=t, updates=t, bytes_up=0, bytes_down=0, metrics={"accuracy": value})
        for t, value in enumerate(accuracies)
    )
    return Result(
        points=points,
        sites={},
        staleness={},
        version=0,
        updates=0,
        refused=0,
        clipped=0,
        bytes_up=0,
        bytes_down=0,
        ended_at=0.0,
        reason="",
        rule=None,
        final_params=torch.zeros(1),
    )


def test_a_target_counts_from_when_it_is_held() -> None:
    result = result_of(0.1, 0.9, 0.5, 0.9, 0.95, 0.2)

    def held_at(metric: str, target: float, **keys: Any) -> float | None:
        point = result.reached(metric, target, **{"held": 2, "better": "higher"} | keys)
        return None if point is None else point.t

    assert held_at("accuracy", 0.9) == 3.0
    assert held_at("accuracy", 0.9, held=1) == 1.0
    assert held_at("accuracy", 0.9, held=3) is None
    assert held_at("accuracy", 0.3, better="lower", held=1) == 0.0
    assert held_at("no-such-metric", 0.0) is None


def test_staleness_figures_are_nearest_ranks() -> None:
    assert staleness_figures([]) == {"mean": 0.0, "p95": 0.0, "max": 0.0}
    assert staleness_figures(list(range(1, 101))) == {"mean": 50.5, "p95": 95.0, "max": 100.0}
