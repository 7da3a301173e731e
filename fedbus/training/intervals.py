"""How sure a site is of its metrics, and of the difference between two models, by the bootstrap over its test cases.

    draw        n of the site's n test cases with replacement, DRAWS times; each metric once more on each draw (Efron &
                Tibshirani, An Introduction to the Bootstrap, 1993, ch. 6, 13). Cases are counted, so that the means of
                all metrics are two matrix products; a metric that is no mean has a `resample` of its own
    paired      two models are measured on the same draws: what is common to both, such as easy patients, cancels in
                the difference (ch. 8)
    quantile    at level p the quantile of the draws at Phi(sqrt(n / (n - 1)) t_{n-1}(p)): the expanded percentile
                interval, for the plain one is too short for few cases (Hesterberg, The American Statistician 69(4),
                2015, section 5.3). n: the cases that have a value

What leaves is a `Spread` of each number: its value, how many cases have one, and 21 quantiles. Never a case's value,
and never a draw: who knew which cases were drawn could solve for their values. So the seed is made here, from the
system's randomness, and never leaves this process; and the draws are blurred by BLUR of their standard deviation, so
that no quantile is the exact mean of some cases. Of fewer than `fewest` cases nothing is said, for their quantiles are
nearly their values; nor of a metric that is the same for all cases, for it would look certain.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedbus.core.protocol.spread import LARGEST, LEVELS, Spread
from fedbus.training.cases import Cases, Rows, Values

DRAWS = 2000
FEWEST_DRAWS = 200
"""With fewer draws in the time that there is, nothing is said."""
MOST_S = 8.0
FEWEST_CASES = 5
BLUR = 0.1
ROOM = 1 << 22
"""Counts that are in memory at once."""
KNOWN = 0.9
"""So large a share of the draws must have a value of a metric."""
TINY = 1e-12

Draws = Mapping[str, Values]
"""By metric, its value on each draw, float64 [draws]; NaN where a draw has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A model at this site: its metrics, and its values per case."""

    metrics: Mapping[str, float]
    cases: Cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """What may leave of one model, by metric; `differences` to another model. notes: for the site's own log."""

    spreads: Mapping[str, Spread] = field(default_factory=dict)
    differences: Mapping[str, Spread] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Intervals:
    """Of one job at this site; it remembers the model that others are compared to.

    fewest: test cases that a number must have, at least 2. Not safe to use from two threads.
    """

    def __init__(self, *, fewest: int = FEWEST_CASES, clock: Callable[[], float] = time.monotonic) -> None:
        self._seed = secrets.randbits(128)
        self._fewest = max(2, fewest)
        self._clock = clock
        self._kept: dict[int, Measured] = {}

    def of(self, measured: Measured, *, model: int = -1, against: int = -1) -> Sureness:
        """Say how sure the metrics are, and the differences to the model `against`, once that was measured here.

        model: this model's number among those of the job; -1: it has none.
        """
        if model == against >= 0:
            self._kept = {model: measured}
        base = self._kept.get(against) if model != against else None
        comparable = base is not None and base.cases.count == measured.cases.count
        models = [measured, base] if base is not None and comparable else [measured]
        drawn, notes = self._drawn([one.cases for one in models])
        spreads = {
            name: self._spread(measured.metrics[name], draws, _known(measured.cases, name), flat=False)
            for name, draws in drawn[0].items()
            if name in measured.metrics
        }
        differences = {} if len(models) == 1 else self._differences(models, drawn)
        if base is not None and not comparable:
            notes.append(f"{measured.cases.count} test cases, {base.cases.count} before: no paired difference")
        return Sureness(spreads=spreads, differences=differences, notes=tuple(notes))

    def _differences(self, models: Sequence[Measured], drawn: Sequence[Draws]) -> dict[str, Spread]:
        new, old = models
        both = drawn[0].keys() & drawn[1].keys() & new.metrics.keys() & old.metrics.keys()
        return {
            name: self._spread(
                new.metrics[name] - old.metrics[name],
                drawn[0][name] - drawn[1][name],
                min(_known(new.cases, name), _known(old.cases, name)),
                flat=True,
            )
            for name in sorted(both)
        }

    def _spread(self, value: float, draws: Values, cases: int, *, flat: bool) -> Spread:
        """flat: a number that is the same on all draws is told as it is; a metric would look certain."""
        if cases < self._fewest or not abs(value) <= LARGEST:
            return Spread(value=max(-LARGEST, min(value, LARGEST)))
        known = draws[np.isfinite(draws)]
        if len(known) < max(FEWEST_DRAWS, KNOWN * len(draws)) or float(np.abs(known).max()) > LARGEST:
            return Spread(value=value, cases=cases)
        width = float(known.std())
        if width <= TINY * max(1.0, abs(value)) and not flat:
            return Spread(value=value, cases=cases)
        low, high = known.min(), known.max()
        blurred = known + np.random.default_rng().normal(0.0, BLUR * width, len(known))
        inside = high - np.abs(high - low - np.abs(blurred - low))  # reflected, so that no metric leaves its range
        quantiles = np.quantile(inside, expanded_levels(cases))
        return Spread(value=value, cases=cases, draws=len(known), quantiles=tuple(map(float, quantiles)))

    def _drawn(self, models: Sequence[Cases]) -> tuple[list[Draws], list[str]]:
        """Each model's metrics on the same draws; fewer draws when time is over."""
        count, until = models[0].count, self._clock() + MOST_S
        names = [sorted(cases.values) for cases in models]
        if count < self._fewest or not any(names[at] or models[at].resample for at in range(len(models))):
            return [{} for _ in models], []
        rng = np.random.default_rng(self._seed)
        means: list[list[NDArray[np.float64]]] = [[] for _ in models]
        others = [_Resampled(cases) for cases in models]
        size = max(1, min(64, ROOM // count))
        columns = [_columns(cases, of) for cases, of in zip(models, names, strict=True)]
        done = 0
        while done < DRAWS and self._clock() < until:
            rows = rng.integers(count, size=(min(size, DRAWS - done), count))
            counts = np.stack([np.bincount(drawn, minlength=count) for drawn in rows]).astype(np.float64)
            for at, (values, known) in enumerate(columns):
                with np.errstate(invalid="ignore", divide="ignore"):
                    means[at].append((counts @ values) / (counts @ known))
                others[at].add(rows)
            done += len(rows)
        found: list[Draws] = [_by_name(names[at], means[at]) | others[at].draws() for at in range(len(models))]
        notes = [note for other in others for note in other.notes]
        if done < DRAWS:
            notes.append(f"{count} test cases: {done} of {DRAWS} draws were made in {MOST_S:g} s")
        return found, notes


class _Resampled:
    """The metrics of one model that are no means, draw by draw; an error in the task's function ends them."""

    def __init__(self, cases: Cases) -> None:
        self.notes: list[str] = []
        self._resample = cases.resample
        self._means = cases.values.keys()
        self._found: list[dict[str, float]] = []

    def add(self, draws: NDArray[np.int64]) -> None:
        for rows in draws:
            if self._resample is not None:
                self._found.append(self._once(rows))

    def _once(self, rows: Rows) -> dict[str, float]:
        try:
            again = self._resample(rows) if self._resample is not None else {}
            return {name: float(value) for name, value in again.items() if name not in self._means}
        except Exception as exc:  # noqa: BLE001 - whatever a task raises here costs the intervals of these metrics alone
            self.notes.append(f"Scores.resample failed, so that its metrics have no interval: {exc!r}")
            self._resample = None
            self._found.clear()
            return {}

    def draws(self) -> dict[str, Values]:
        if self._resample is None:
            return {}
        names = sorted({name for found in self._found for name in found})
        return {name: np.array([found.get(name, math.nan) for found in self._found]) for name in names}


def expanded_levels(cases: int) -> list[float]:
    """The levels of the draws' quantiles that stand for LEVELS with so many cases, see the module."""
    normal, wider = NormalDist(), math.sqrt(cases / (cases - 1))
    return [normal.cdf(wider * student_quantile(level, cases - 1)) for level in LEVELS]


def student_quantile(level: float, degrees: int) -> float:
    """Return the quantile of Student's t: exact for 1 and 2 degrees, else the series of Abramowitz & Stegun 26.7.5."""
    if degrees == 1:
        return math.tan(math.pi * (level - 0.5))
    if degrees == 2:
        return (2 * level - 1) / math.sqrt(2 * level * (1 - level))
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms)))


def _known(cases: Cases, name: str) -> int:
    values = cases.values.get(name)
    return cases.count if values is None else int(np.count_nonzero(~np.isnan(values)))


def _columns(cases: Cases, names: Sequence[str]) -> tuple[Values, Values]:
    """Values [cases, metrics], 0 where there is none, and 1 where there is one, else 0."""
    if not names:
        return np.zeros((cases.count, 0)), np.zeros((cases.count, 0))
    table = np.stack([cases.values[name] for name in names], axis=1)
    known = ~np.isnan(table)
    return np.where(known, table, 0.0), known.astype(np.float64)


def _by_name(names: Sequence[str], blocks: Sequence[Values]) -> dict[str, Values]:
    whole = np.concatenate(blocks) if blocks else np.zeros((0, len(names)))
    return {name: whole[:, at] for at, name in enumerate(names)}
