"""How fast an update is folded on this machine, against what its memory gives to one core.

    fold        sum += weight * delta: two streams are read and one is written, 12 bytes for each param
    bandwidth   a += b with vectors of 400 MB, the same streams with no arithmetic worth the name, 12 bytes each too

Both are the best of their turns, taken one after the other, in seconds of this thread: with other work on the machine
both suffer alike. A model that fits the cache is faster than memory and its share is over 100 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fedbus.tensors.fold import Accumulator

PARAMS = (1_000_000, 10_000_000, 100_000_000)
BYTES_PER_PARAM = 12
_GOAL_PERCENT = 60.0


def rows(*, params: tuple[int, ...] = PARAMS, reference: int = 100_000_000, turns: int = 9) -> list[dict[str, Any]]:
    """Return rows {case, value, unit, goal, met}: bandwidth, then GB/s and share of it for each size; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(params, reference, turns)
    finally:
        torch.set_num_threads(threads)


def _measure(params: tuple[int, ...], reference: int, turns: int) -> list[dict[str, Any]]:
    bandwidth, speeds = 0.0, dict.fromkeys(params, 0.0)
    ours, theirs = torch.zeros(reference), torch.full((reference,), 1e-6)
    folds = {n: partial(Accumulator(n).fold_, torch.full((n,), 1e-3), 0.25) for n in params}
    for _ in range(turns):
        bandwidth = max(bandwidth, _speed(reference, lambda: ours.add_(theirs)))
        for numel, fold in folds.items():
            for _ in range(max(1, min(8, reference // numel))):
                speeds[numel] = max(speeds[numel], _speed(numel, fold))
    table = [_row("memory bandwidth", bandwidth, "GB/s", None)]
    for numel, speed in speeds.items():
        name = f"fold {numel / 1e6:g} M params"
        table += [_row(name, speed, "GB/s", None), _row(name, 100 * speed / bandwidth, "% of bandwidth", _GOAL_PERCENT)]
    return table


def _speed(numel: int, run: Callable[[], object]) -> float:
    started = time.thread_time()
    run()
    return BYTES_PER_PARAM * numel / max(time.thread_time() - started, 1e-9) / 1e9


def _row(case: str, value: float, unit: str, goal: float | None) -> dict[str, Any]:
    met = None if goal is None else value >= goal
    return {"case": case, "value": round(value, 3), "unit": unit, "goal": goal, "met": met}
