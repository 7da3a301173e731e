"""Which runs a table needs, and what each rule's row is: its best step length, then all seeds at that.

What lives here: cases in, one summary per rule and setting out. What may not: how tables look (see `table`), goals
(see `goals`).

Everybody gets a grid of the same number of points. All of them are tried on the first seed, the best KEPT also on the
others of the first `tune_seeds`, in runs that stop at the target; the best is that with the lowest median time, and
where no step reaches the target before the limit, that with the best score there. A trial ends when it has taken SLOWER
times as long as the middle of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from fedbus.bench.time_to_target.cases import Case, Outcome
from fedbus.bench.time_to_target.pool import Pool
from fedbus.bench.time_to_target.rules import rule_of

KEPT = 3
SLOWER = 1.5


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
    def ran_s(self) -> float:
        """How long a run that does not reach the target goes on for it."""
        return min(outcome.case.limit_s * outcome.case.patience for outcome in self.outcomes)

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
    def cpu_s(self) -> float:
        return sum(outcome.cpu_s for outcome in self.outcomes)

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


Place = tuple[Setting, str]
Trials = dict[Place, list[Case]]


def best_etas(plan: Plan, pool: Pool) -> dict[Place, float | None]:
    """Return each rule's best step length in each setting; see the head of this module for how it is found."""
    places = [(setting, rule) for setting in plan.settings for rule in plan.rules]
    found: dict[Place, list[Outcome]] = {place: [] for place in places}
    for stage in (_first_trials, _other_trials, _trials_on_more_seeds):
        trials = {place: stage(plan, *place, found[place]) for place in places if len(plan.grid(place[1])) > 1}
        known = pool.by_case([case for cases in trials.values() for case in cases])
        for place, cases in trials.items():
            found[place] += [known[case] for case in cases]
    return {
        (setting, rule): _ranked(setting, rule, found[setting, rule])[0].eta
        if found[setting, rule]
        else plan.grid(rule)[0]
        for setting, rule in places
    }


def _first_trials(plan: Plan, setting: Setting, rule: str, known: Sequence[Outcome]) -> list[Case]:
    """The middle of the grid on the first seed."""
    grid = plan.grid(rule)
    return [plan.case(setting, rule, grid[(len(grid) - 1) // 2], 0)]


def _other_trials(plan: Plan, setting: Setting, rule: str, known: Sequence[Outcome]) -> list[Case]:
    """The rest of the grid, for not much longer than the first trial took: who takes longer is not the best."""
    first = known[0]
    until_s = first.time_s and min(math.ceil(first.time_s * SLOWER), first.case.limit_s)
    others = [eta for eta in plan.grid(rule) if eta != first.case.eta]
    return [replace(plan.case(setting, rule, eta, 0), until_s=until_s or plan.until_s) for eta in others]


def _trials_on_more_seeds(plan: Plan, setting: Setting, rule: str, known: Sequence[Outcome]) -> list[Case]:
    """The best few on the other seeds."""
    kept = [row.eta for row in _ranked(setting, rule, known)[:KEPT]]
    return [plan.case(setting, rule, eta, seed) for eta in kept for seed in range(1, min(plan.seeds, plan.tune_seeds))]


def _ranked(setting: Setting, rule: str, outcomes: Sequence[Outcome]) -> list[Summary]:
    """One row per step length, best first; only those with the most seeds."""
    by_eta: dict[float | None, list[Outcome]] = {}
    for outcome in outcomes:
        by_eta.setdefault(outcome.case.eta, []).append(outcome)
    most = max(map(len, by_eta.values()), default=0)
    rows = [summary(setting, rule, eta, found) for eta, found in by_eta.items() if len(found) == most]
    return sorted(rows, key=_badness)


def _badness(row: Summary) -> tuple[float, float, float]:
    """The lower the better: median time, seeds that missed, and of those the score."""
    missed = sum(outcome.time_s is None for outcome in row.outcomes)
    scores = [outcome.final for outcome in row.outcomes if outcome.final is not None and outcome.time_s is None]
    return row.time_s, missed, -sum(scores) / len(scores) if scores else 0.0


def _or_never(value: float | None) -> float:
    return math.inf if value is None else value
