"""One run of the comparison: a rule on a scenario, with one seed and one step length; and what came of it.

What lives here: from a case to its outcome. What may not: which cases a table needs (see `plan`), many of them at once
(see `pool`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from fedbus.bench.time_to_target.rules import rule_of
from fedbus.bench.time_to_target.scenarios import SCENARIOS, TROUBLES, Scenario
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import Point, Presence, SimulatedSite, Simulation, delays_of, site_names
from fedbus.simulation.sites import make_tasks
from fedbus.training.task import Task

HELD = 2
FINAL_POINTS = 15
DOWN = {"topk": "int4"}
"""Top-k is for updates; the model log takes this code instead."""
RARE_SCORE = "accuracy_rare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that decides a run.

    until_s: where final scores are read; None: the scenario's limit. patience: so many times that a run goes on for a
    target that it has not reached. to_end: a run that has reached it goes on to `until_s` for its final scores.
    """

    scenario: str
    rule: str
    eta: float | None
    seed: int
    lr_factor: float = 1.0
    ratio: float = 10.0
    codec: str = "fp32"
    trouble: str = ""
    until_s: float | None = None
    patience: float = 1.0
    to_end: bool = False

    @property
    def key(self) -> str:
        """What identifies the run, whether or not it goes on after the target."""
        return json.dumps(asdict(replace(self, to_end=False)), sort_keys=True)

    @property
    def limit_s(self) -> float:
        if self.until_s is not None:
            return self.until_s
        return SCENARIOS[self.scenario].limit_s(ratio=self.ratio, lr_factor=self.lr_factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case. Numbers up to the target are None when it was not reached and held.

    time_s: virtual seconds. cpu_s: what the run cost this machine.
    final, rare: means over the last FINAL_POINTS evaluations before the case's limit; None when the run ended before.
    """

    case: Case
    time_s: float | None
    updates: int | None
    bytes_up: int | None
    bytes_down: int | None
    final: float | None
    rare: float | None
    all_updates: int
    reason: str
    cpu_s: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        data: dict[str, Any] = json.loads(text)
        return cls(**{**data, "case": Case(**data["case"])})


def run_case(case: Case) -> Outcome:
    """Run a case in virtual time; the same case gives the same outcome, except for `cpu_s`."""
    began = time.process_time()
    scenario, rule = SCENARIOS[case.scenario], rule_of(case.rule)
    spec = _spec(case, scenario)
    names = site_names(spec, scenario.sites)
    watch = _Watch(case, scenario)
    simulation = Simulation(
        spec,
        _sites(case, names),
        seed=case.seed,
        evaluate_every_s=scenario.evaluate_every_s,
        scorers=names[:1] if scenario.shares_test else None,
        on_progress=watch.see,
        rule=None if rule.foreign is None else rule.foreign(scenario, _given(case)),
        transform=TROUBLES[case.trouble].transform(names),
    )
    try:
        reason = simulation.run(until_s=case.limit_s * case.patience).reason
    except _EnoughError:
        reason = "the target is held"
    return watch.outcome(reason, time.process_time() - began)


def _spec(case: Case, scenario: Scenario) -> TrainingSpec:
    data = scenario.spec(seed=case.seed, lr_factor=case.lr_factor)
    rule = rule_of(case.rule)
    codec = {"codec": {"up": case.codec, "down": DOWN.get(case.codec, case.codec)}}
    return TrainingSpec.parse({**data, **codec, **rule.spec(scenario, case.eta)})


def _given(case: Case) -> float:
    if case.eta is None:
        raise ValueError(f"rule {case.rule} needs a step length")
    return case.eta


def _sites(case: Case, names: list[str]) -> list[SimulatedSite]:
    tasks = _tasks(case.scenario, case.seed)
    delays = delays_of(f"geometric:{case.ratio:g}", len(names), seed=case.seed)
    there = TROUBLES[case.trouble].presence(names, case.ratio)
    return [
        SimulatedSite(name=name, task=tasks[name], delay=delay, presence=there.get(name, Presence()))
        for name, delay in zip(names, delays, strict=True)
    ]


@lru_cache(maxsize=8)
def _tasks(scenario: str, seed: int) -> Mapping[str, Task]:
    """Load the data once for all cases that share them: a task keeps nothing of a run."""
    spec = TrainingSpec.parse(SCENARIOS[scenario].spec(seed=seed, lr_factor=1.0))
    return make_tasks(spec, site_names(spec, SCENARIOS[scenario].sites))


class _EnoughError(Exception):
    """Ends a run that need not go on."""


class _Watch:
    """Sees every point of a run, and ends it when the target is held and nothing more is asked."""

    def __init__(self, case: Case, scenario: Scenario) -> None:
        self._case = case
        self._scenario = scenario
        self._points: list[Point] = []
        self._held: list[Point] = []

    def see(self, point: Point) -> None:
        self._points.append(point)
        if len(self._held) < HELD:
            value = point.metrics.get(self._scenario.metric, math.nan)
            self._held = [*self._held, point] if self._scenario.good(value) else []
        if len(self._held) == HELD and (not self._case.to_end or point.t >= self._case.limit_s):
            raise _EnoughError

    def outcome(self, reason: str, cpu_s: float) -> Outcome:
        reached = self._held[0] if len(self._held) == HELD else None
        return Outcome(
            case=self._case,
            time_s=None if reached is None else reached.t,
            updates=None if reached is None else reached.updates,
            bytes_up=None if reached is None else reached.bytes_up,
            bytes_down=None if reached is None else reached.bytes_down,
            final=self._last(self._scenario.score),
            rare=self._last(RARE_SCORE),
            all_updates=self._points[-1].updates,
            reason=reason,
            cpu_s=round(cpu_s, 2),
        )

    def _last(self, metric: str) -> float | None:
        """The mean of the last points before the limit; a run that broke off early is judged by its last ones."""
        stopped = len(self._held) == HELD and self._points[-1].t < self._case.limit_s
        points = [p for p in self._points if p.t <= self._case.limit_s][-FINAL_POINTS:]
        values = [p.metrics[metric] for p in points if metric in p.metrics]
        return None if stopped or not values else math.fsum(values) / len(values)
