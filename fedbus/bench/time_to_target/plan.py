"""Which runs a table needs, and what each rule's row is: its best step length, then all seeds at that.

What lives here: cases in, one summary per rule and setting out. What may not: how tables look (see `table`), goals
(see `goals`).

Step lengths are chosen on the first `tune_seeds` seeds, runs that stop at the target, by the median time; where no
step reaches it before the limit, by the score there. Everybody gets a grid of the same number of points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from fedbus.bench.time_to_target.cases import Case, Outcome
from fedbus.bench.time_to_target.pool import Pool
from fedbus.bench.time_to_target.rules import rule_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What rules are compared in: one block of the table."""

    scenario: str
    lr_factor: float = 1.0
    ratio: float = 10.0

    def __str__(self) -> str:
        lr = "" if self.lr_factor == 1 else f", local lr x {self.lr_factor:g}"
        ratio = "" if self.ratio == 10 else f", ratio {self.ratio:g}"
        return f"{self.scenario}{lr}{ratio}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A table: settings and rules, `seeds` runs each. `etas` takes the place of every rule's own grid.

    `patience`: at its best step a run goes on for its target so many times as long as one that tries a step.
    """

    settings: Sequence[Setting]
    rules: Sequence[str]
    seeds: int = 5
    tune_seeds: int = 2
    etas: Sequence[float] | None = None
    until_s: float | None = None
    patience: float = 3.0
    to_end: bool = False

    def grid(self, rule: str) -> Sequence[float | None]:
        """Return the step lengths that a rule is tried with; only None for one without a knob."""
        own = rule_of(rule).grid
        if not own:
            return (None,)
        return self.etas or own

    def case(self, setting: Setting, rule: str, eta: float | None, seed: int) -> Case:
        """Return one run, which may stop at the target."""
        return Case(
            scenario=setting.scenario,
            rule=rule,
            eta=eta,
            seed=seed,
            lr_factor=setting.lr_factor,
            ratio=setting.ratio,
            until_s=self.until_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One row: a rule in a setting at one step length, over seeds. Medians; a target that is missed counts as inf."""

    setting: Setting
    rule: str
    eta: float | None
    outcomes: Sequence[Outcome]

    @property
    def time_s(self) -> float:
        return median(self._times)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """The quartiles by nearest rank, so that a seed that never arrives makes no average of infinity."""
        ranked = sorted(self._times)
        return ranked[(len(ranked) - 1) // 4], ranked[-1 - (len(ranked) - 1) // 4]

    @property
    def updates(self) -> float:
        return self._median("updates")

    @property
    def bytes_up(self) -> float:
        return self._median("bytes_up")

    @property
    def bytes_down(self) -> float:
        return self._median("bytes_down")

    @property
    def final(self) -> float | None:
        return self._score("final")

    @property
    def rare(self) -> float | None:
        return self._score("rare")

    @property
    def wall_s(self) -> float:
        return sum(outcome.wall_s for outcome in self.outcomes)

    @property
    def _times(self) -> list[float]:
        return [_or_never(outcome.time_s) for outcome in self.outcomes]

    def _median(self, name: str) -> float:
        return median(_or_never(getattr(outcome, name)) for outcome in self.outcomes)

    def _score(self, name: str) -> float | None:
        """The median over all seeds; None unless every run went to its end."""
        found = [value for outcome in self.outcomes if (value := getattr(outcome, name)) is not None]
        return median(found) if len(found) == len(self.outcomes) else None


def summaries(plan: Plan, pool: Pool) -> list[Summary]:
    """Run what is needed; one row per setting and rule."""
    tuned = best_etas(plan, pool)
    cases = [
        replace(plan.case(setting, rule, eta, seed), patience=plan.patience, to_end=plan.to_end)
        for (setting, rule), eta in tuned.items()
        for seed in range(plan.seeds)
    ]
    outcomes = pool.outcomes(cases)
    return [
        summary(setting, rule, eta, outcomes[start : start + plan.seeds])
        for start, ((setting, rule), eta) in zip(range(0, len(outcomes), plan.seeds), tuned.items(), strict=True)
    ]


def summary(setting: Setting, rule: str, eta: float | None, outcomes: Iterable[Outcome]) -> Summary:
    """Return the row of some outcomes."""
    return Summary(setting=setting, rule=rule, eta=eta, outcomes=tuple(outcomes))


def best_etas(plan: Plan, pool: Pool) -> dict[tuple[Setting, str], float | None]:
    """Return each rule's best step length in each setting, by the first `tune_seeds` seeds."""
    seeds = range(min(plan.seeds, plan.tune_seeds) or plan.seeds)
    places = [(setting, rule) for setting in plan.settings for rule in plan.rules]
    trials = {
        (setting, rule): [(eta, [plan.case(setting, rule, eta, seed) for seed in seeds]) for eta in plan.grid(rule)]
        for setting, rule in places
    }
    choices = [trial for found in trials.values() if len(found) > 1 for trial in found]
    known = pool.by_case([case for _, cases in choices for case in cases])
    return {
        (setting, rule): found[0][0]
        if len(found) == 1
        else min(found, key=lambda trial: _badness(summary(setting, rule, trial[0], (known[c] for c in trial[1]))))[0]
        for (setting, rule), found in trials.items()
    }


def _badness(row: Summary) -> tuple[float, float, float]:
    """The lower the better: median time, seeds that missed, and of those the score."""
    missed = sum(outcome.time_s is None for outcome in row.outcomes)
    scores = [outcome.final for outcome in row.outcomes if outcome.final is not None and outcome.time_s is None]
    return row.time_s, missed, -sum(scores) / len(scores) if scores else 0.0


def _or_never(value: float | None) -> float:
    return math.inf if value is None else value
