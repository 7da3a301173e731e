"""What the comparison is to show, as rows of case, value, unit, goal, met; a missed goal is a row like any other.

What lives here: ratios between rows of one table. What may not: runs.

    G1  auto: time to target against sync, every APPFL rule and textbook FedBuff, each at its own best step
    G2  auto on digits-b: accuracy on the rare classes, alone and against sync
    G4  equal speeds: auto against sync
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedbus.bench.time_to_target.plan import Summary
from fedbus.bench.time_to_target.rules import rule_of
from fedbus.bench.time_to_target.scenarios import SCENARIOS

Row = dict[str, Any]

AGAINST_SYNC = {"digits": 0.25, "fashion": 0.35}
AGAINST_APPFL = 0.45
AGAINST_FEDBUFF = {"a": 0.85, "b": 0.50}
EQUAL_SPEEDS = 1.15
RARE = 0.92
RARE_GAIN = 0.05


def at_most(case: str, value: float, unit: str, goal: float | None) -> Row:
    """A figure that is to be small; no goal: only shown."""
    return _row(case, value, unit, goal, lambda v, g: v <= g)


def at_least(case: str, value: float, unit: str, goal: float | None) -> Row:
    """A figure that is to be large; no goal: only shown."""
    return _row(case, value, unit, goal, lambda v, g: v >= g)


def _row(case: str, value: float, unit: str, goal: float | None, good: Callable[[float, float], bool]) -> Row:
    shown = round(value, 4) if math.isfinite(value) else value
    return {
        "case": case,
        "value": shown,
        "unit": unit,
        "goal": goal,
        "met": None if goal is None else good(shown, goal),
    }


def ratio(value: float, other: float) -> float:
    """Return value / other; inf when the first never came, nan when only the other did not."""
    if math.isinf(value):
        return math.inf
    return math.nan if math.isinf(other) else value / other


def times_ratio(row: Summary, other: Summary) -> float:
    """Return the ratio of the times to target; where the other never came, it is at most this: it ran so long."""
    return ratio(row.time_s, other.ran_s if math.isinf(other.time_s) else other.time_s)


def goal_rows(rows: Sequence[Summary]) -> list[Row]:
    """Return the goals that these rows can speak of: local lr x 1, at ratio 10 and, for G4, 1."""
    found: list[Row] = []
    for auto in rows:
        if auto.rule == "auto" and auto.setting.lr_factor == 1:
            others = {row.rule: row for row in rows if row.setting == auto.setting}
            found += _speed(auto, others) if auto.setting.ratio == 10 else []
            found += _rare(auto, others.get("sync")) if auto.setting.ratio == 10 else []
            found += _equal(auto, others.get("sync")) if auto.setting.ratio == 1 else []
    return found


def _speed(auto: Summary, others: dict[str, Summary]) -> Iterator[Row]:
    scenario = SCENARIOS[auto.setting.scenario]
    kind = scenario.name.rpartition("-")[2]
    for name, other in others.items():
        match rule_of(name).origin:
            case "appfl":
                goal: float | None = AGAINST_APPFL if kind in AGAINST_FEDBUFF else None
            case "textbook":
                goal = {"sync": AGAINST_SYNC.get(scenario.family), "fedbuff": AGAINST_FEDBUFF.get(kind)}.get(name)
            case _:
                continue
        yield at_most(f"G1 {auto.setting}: auto / {name}, time to target", times_ratio(auto, other), "x", goal)


def _rare(auto: Summary, sync: Summary | None) -> Iterator[Row]:
    if auto.rare is None:
        return
    goal = RARE if auto.setting.scenario == "digits-b" else None
    yield at_least(f"G2 {auto.setting}: auto, accuracy on rare classes", auto.rare, "", goal)
    if sync is not None and sync.rare is not None:
        gain_goal = None if goal is None else RARE_GAIN
        yield at_least(f"G2 {auto.setting}: the same - sync's", auto.rare - sync.rare, "", gain_goal)


def _equal(auto: Summary, sync: Summary | None) -> Iterator[Row]:
    if sync is not None:
        value = times_ratio(auto, sync)
        yield at_most(f"G4 {auto.setting}: auto / sync, time to target", value, "x", EQUAL_SPEEDS)
