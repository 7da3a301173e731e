"""The scenarios: a task shared among sites, their speeds, a target; and what may go wrong in them.

What lives here: data. What may not: aggregation rules (see `rules`), running (see `cases`).

    digits-a, fashion-a   how fast a site is says nothing about its data
    digits-b, fashion-b   the three slowest sites own classes 7 to 9, nobody else has any
    wide-a, wide-b        digits-a and -b with 2,048 hidden units: 153,610 params, of which 10 lie in tensors that are
                          exact by rule (714 of digits-a's 4,810): what codes do to models that people train
    heart                 four hospitals with their own patients; the target is the loss over all their test patients,
                          best known .43: smoother than the area under the curve, which is the final score

Speeds: periods of 1 to `ratio` seconds in equal ratios, each training +- 10 %; the last site is the slowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from fedbus.errors import SettingsError
from fedbus.simulation import Presence
from fedbus.tasks.scanners import same_tests

RARE: Mapping[str, Any] = {"rare_classes": [7, 8, 9], "rare_sites": 3}
ATTACKERS = (1, 6)
ATTACK = -3.0
LATE_AT_S = 100.0
AWAY_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One task with its target. `until_s` is for a ratio of 10 and the task's own local learning rate."""

    name: str
    task: str
    sites: int
    local: Mapping[str, Any]
    metric: str
    target: float
    better: Literal["higher", "lower"] = "higher"
    task_config: Mapping[str, Any] = field(default_factory=dict)
    split_seed: bool = True
    until_s: float = 400.0
    evaluate_every_s: float = 1.0
    score: str = "accuracy"

    @property
    def buffer(self) -> int:
        """K, the same for every rule that has a buffer."""
        return max(2, math.ceil(self.sites / 3))

    @property
    def family(self) -> str:
        """What the goals call it: digits, fashion, heart."""
        return self.name.partition("-")[0]

    @property
    def shares_test(self) -> bool:
        """Whether all sites score the same images, so that one of them is enough."""
        return same_tests(self.task_config)

    def good(self, value: float) -> bool:
        """Whether a value of the metric reaches the target."""
        return value >= self.target if self.better == "higher" else value <= self.target

    def limit_s(self, *, ratio: float, lr_factor: float) -> float:
        """Virtual seconds after which a run has not reached the target: longer for slow sites and small steps."""
        return self.until_s * max(1.0, ratio / 10) * max(1.0, 1 / lr_factor)

    def spec(self, *, seed: int, lr_factor: float) -> dict[str, Any]:
        """The job, without its aggregation rule."""
        config = {**self.task_config, **({"split_seed": seed} if self.split_seed else {})}
        local = {**self.local, "learning_rate": self.local["learning_rate"] * lr_factor, "evaluate": False}
        return {
            "name": self.name,
            "task": self.task,
            "task_config": config,
            "seed": seed,
            "local": local,
            "stop": {"wall_time_s": 1e8},
        }


_DIGITS: Mapping[str, Any] = {
    "task": "digits",
    "sites": 12,
    "local": {"steps": 10, "batch_size": 16, "learning_rate": 0.1},
    "metric": "accuracy",
}
_FASHION: Mapping[str, Any] = {
    "task": "fashion_mnist",
    "sites": 10,
    "local": {"steps": 10, "batch_size": 32, "learning_rate": 0.05},
    "metric": "accuracy",
    "evaluate_every_s": 2.0,
    "until_s": 300.0,
}
_WIDE: Mapping[str, Any] = {"hidden": [2048]}
_SHARED: Mapping[str, Any] = {"alpha": 0.3, "shared_test": True}

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="digits-a", target=0.94, task_config=_SHARED, **_DIGITS),
        Scenario(name="digits-b", target=0.90, task_config={**_SHARED, **RARE}, **_DIGITS),
        Scenario(name="wide-a", target=0.94, task_config={**_SHARED, **_WIDE}, **_DIGITS),
        Scenario(name="wide-b", target=0.90, task_config={**_SHARED, **RARE, **_WIDE}, **_DIGITS),
        Scenario(name="fashion-a", target=0.78, task_config=_SHARED, **_FASHION),
        Scenario(name="fashion-b", target=0.72, task_config={**_SHARED, **RARE}, **_FASHION),
        Scenario(
            name="heart",
            task="heart_disease",
            sites=4,
            local={"steps": 10, "batch_size": 16, "learning_rate": 0.1},
            metric="loss",
            target=0.46,
            better="lower",
            split_seed=False,
            score="auc",
        ),
    )
}


def scenario_of(name: str) -> Scenario:
    """Return a scenario by name; SettingsError with all names for one that does not exist."""
    if name not in SCENARIOS:
        raise SettingsError(f"scenario {name!r}: expected one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


Transform = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What goes wrong in a run: when sites are there, and what they send instead of their delta."""

    presence: Callable[[list[str], float], dict[str, Presence]] = lambda names, ratio: {}
    transform: Callable[[list[str]], Transform | None] = lambda names: None


def _churn(names: list[str], ratio: float) -> dict[str, Presence]:
    return dict.fromkeys(names, Presence(away_share=AWAY_SHARE, period_s=ratio))


def _late(names: list[str], ratio: float) -> dict[str, Presence]:
    return dict.fromkeys(names[-RARE["rare_sites"] :], Presence(joins_at=LATE_AT_S))


def _attack(names: list[str]) -> Transform:
    if len(names) <= max(ATTACKERS):
        raise SettingsError(f"attackers are sites {ATTACKERS}, counted from 0: expected more than {len(names)} sites")
    attackers = {names[index] for index in ATTACKERS}
    return lambda site, delta: delta * ATTACK if site in attackers else delta


TROUBLES: Mapping[str, Trouble] = {
    "": Trouble(),
    "churn": Trouble(presence=_churn),
    "late": Trouble(presence=_late),
    "attack": Trouble(transform=_attack),
}
