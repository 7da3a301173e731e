"""Do 95 % intervals hold what they should in 95 of 100 repetitions, and what does pairing gain?

Each repetition draws new test cases of a known truth, as a site has them, and asks `training.intervals`. Dice of a
model is Beta(8, 2), skewed as Dice is; AUC is of two normal classes 1.2 apart, 40 % ill; a better model adds .02 and
noise of .05 to the Dice of the same patients. Three sites together have n cases each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from fedbus.bench.figures import Row, row
from fedbus.core.job.spreads import OfSite, together
from fedbus.core.protocol.spread import Spread
from fedbus.tasks.metrics import auc, auc_again
from fedbus.training.cases import Cases
from fedbus.training.intervals import Intervals, Measured, Sureness

DICE, AUC = "dice", "auc"
TRUE_DICE, GAIN = 0.8, 0.02
APART, ILL = 1.2, 0.4
TRUE_AUC = NormalDist().cdf(APART / math.sqrt(2))
SITES = 3

Values = NDArray[np.float64]


def rows(*, cases: tuple[int, ...], repetitions: int, seed: int = 0) -> list[Row]:
    """Coverage of intervals in per cent, and widths, for each number of test cases."""
    found: list[Row] = []
    for count in cases:
        rng = np.random.default_rng([seed, count])
        alone = [_dice(_patients(count, rng)) for _ in range(repetitions)]
        ranks = [_ranked(count, rng) for _ in range(repetitions)]
        pairs = [_pair(count, rng) for _ in range(repetitions)]
        trios = [{f"{at}": _dice(_patients(count, rng)) for at in range(SITES)} for _ in range(repetitions)]
        sums = [together({k: OfSite(examples=count, spread=s) for k, s in trio.items()}) for trio in trios]
        found += [
            row(f"{count} cases: mean Dice of one site", _holds(alone, TRUE_DICE), "% hold the truth"),
            row(f"{count} cases: AUC of one site", _holds(ranks, TRUE_AUC), "% hold the truth"),
            row(f"{count} cases: AUC, no interval", _none(ranks), "% of repetitions"),
            row(
                f"{count} cases at each of {SITES} sites: mean Dice",
                _share([one is not None and one.low <= TRUE_DICE <= one.high for one in sums]),
                "% hold the truth",
            ),
            row(f"{count} cases: paired difference", _holds([p for p, _ in pairs], GAIN), "% hold the truth"),
            row(f"{count} cases: width paired / unpaired", float(np.median([_ratio(*p) for p in pairs])), "median"),
        ]
    return found


def cost_rows(*, cases: int = 10_000) -> list[Row]:
    """Seconds that a site spends on its intervals for so many test cases."""
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    _two_means(cases, rng)
    between = time.perf_counter()
    _ranked(cases, rng)
    ended = time.perf_counter()
    return [
        row(f"{cases:,} cases: intervals of two means", between - began, "s"),
        row(f"{cases:,} cases: interval of an AUC", ended - between, "s"),
    ]


def _two_means(count: int, rng: np.random.Generator) -> None:
    values = {DICE: _patients(count, rng), "loss": _patients(count, rng)}
    metrics = {name: float(of.mean()) for name, of in values.items()}
    Intervals().of(Measured(metrics=metrics, cases=Cases(count=count, values=values)))


def _patients(count: int, rng: np.random.Generator) -> Values:
    return rng.beta(8, 2, count)


def _dice(values: Values) -> Spread:
    return _sure(values).spreads[DICE]


def _sure(values: Values) -> Sureness:
    return Intervals().of(_measured(values))


def _measured(values: Values) -> Measured:
    return Measured(metrics={DICE: float(values.mean())}, cases=Cases(count=len(values), values={DICE: values}))


def _ranked(count: int, rng: np.random.Generator) -> Spread | None:
    ill = rng.random(count) < ILL
    scores, labels = torch.from_numpy(rng.normal(0, 1, count) + APART * ill), torch.from_numpy(ill.astype(float))
    area = auc(scores, labels)
    if area is None:
        return None
    again: Callable[[NDArray[np.int64]], float] = auc_again(scores, labels)
    cases = Cases(count=count, resample=lambda drawn: {AUC: again(drawn)})
    return Intervals().of(Measured(metrics={AUC: area}, cases=cases)).spreads[AUC]


def _pair(count: int, rng: np.random.Generator) -> tuple[Spread, float]:
    """The paired difference, and the width that two independent intervals would give it."""
    first = _patients(count, rng)
    second = first + GAIN + rng.normal(0, 0.05, count)
    intervals = Intervals()
    of_first = intervals.of(_measured(first), model=0, against=0).spreads[DICE]
    sure = intervals.of(_measured(second), model=1, against=0)
    return sure.differences[DICE], math.hypot(_width(of_first), _width(sure.spreads[DICE]))


def _ratio(paired: Spread, unpaired: float) -> float:
    return _width(paired) / unpaired


def _width(spread: Spread) -> float:
    low, high = spread.interval or (math.nan, math.nan)
    return high - low


def _holds(spreads: list[Spread | None] | list[Spread], truth: float) -> float:
    known = [s.interval for s in spreads if s is not None and s.interval is not None]
    return _share([low <= truth <= high for low, high in known])


def _none(spreads: list[Spread | None]) -> float:
    return _share([s is None or s.interval is None for s in spreads])


def _share(found: list[bool]) -> float:
    return 100.0 * sum(found) / len(found) if found else math.nan
