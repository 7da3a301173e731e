"""Do these data look right? Plausible ranges of columns and images, counted and said; numpy only, no I/O.

A task says once what its columns hold, checks them when it loads them, and logs what it is told:

    CHOL = Numbers(name="chol", unit="mg/dL", low=60, high=700, missing=(-9.0, 0.0), other_units={"mmol/L": 38.67})
    SEX = Codes(name="sex", codes={0: "female", 1: "male"}, missing=(-9.0,))

    chol = check(CHOL, table["chol"], where="patients.csv")
    log.log(chol.level, chol.text)
    chol.values          # float64 [n], NaN where missing or implausible: what to fill in is the task's to know

The log then says

    chol: 303 values, 12 missing, 3 outside 60 to 700 mg/dL (9999): treated as missing; from 126 to 564 mg/dL, ...

A single value outside its range is a slip or somebody's code for "not measured": it is taken as missing, and counted. A
column with many of them is in another unit, or is another column: DataError, for a guess would train on wrong numbers.
The texts hold ranges and counts, never rows; they are for the site's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedbus.errors import DataError

Values = NDArray[np.float64]

FEW = 5
"""So many values outside the range are slips wherever they are less than half of the column."""
OUTSIDE_SHARE = 0.1
"""And of long columns this share."""
MOST_TOLD = 5
FIRM = 10
"""From so many values on it is asked whether they vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a column of measurements should hold: finite numbers from `low` to `high`, both included.

    `missing` are the numbers that mean "not measured". `other_units` maps a unit in which people keep the same
    measurement to what 1 of it is in `unit`; it serves the refusal's advice. `spread` is the usual standard deviation.
    """

    name: str
    unit: str
    low: float
    high: float
    missing: tuple[float, ...] = ()
    other_units: Mapping[str, float] = field(default_factory=dict)
    spread: float | None = None

    @property
    def range(self) -> str:
        return f"{self.low:g} to {self.high:g} {self.unit}"

    def other_unit(self, values: Values) -> str:
        """Return a question that names the units in which nine of ten `values` would be plausible; "" without any."""
        units = {
            unit: factor
            for unit, factor in self.other_units.items()
            if np.mean((values * factor >= self.low) & (values * factor <= self.high)) >= 0.9
        }
        if not units:
            return ""
        says = ", ".join(f"{unit} times {factor:.4g} are {self.unit}" for unit, factor in units.items())
        return f": {' or '.join(units)}? ({says})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What a column of categories should hold: one of the whole numbers in `codes`, each with its meaning."""

    name: str
    codes: Mapping[int, str]
    missing: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A column's values fp64 [n], NaN where missing or implausible; one line of text, and the log level it deserves."""

    values: Values
    text: str
    level: int


def check(
    column: Numbers | Codes,
    values: Sequence[float | None] | ArrayLike,
    *,
    where: str,
    lines: Sequence[int] | None = None,
) -> Checked:
    """Check `values` [n], NaN (or None) where missing; `values` are not changed.

    `where` names the file; `lines` [n] are the lines that the values stand in, for messages. Raises DataError when a
    column of numbers has too many values outside its range, and when a category is none of its codes.
    """
    given = np.array(values, dtype=np.float64)
    coded = np.isin(given, column.missing)
    given[coded] = np.nan
    counts = f"{column.name}: {len(given)} values, {int(np.isnan(given).sum())} missing"
    if coded.any():
        written = ", ".join(f"{value:g}" for value in column.missing)
        counts += f" ({int(coded.sum())} of them written as {written})"
    match column:
        case Numbers():
            return _numbers(column, given, counts, where)
        case Codes():
            return _codes(column, given, counts, where, lines)
        case _:
            assert_never(column)


def check_images(
    pixels: NDArray[Any], labels: NDArray[Any], *, brightest: float, classes: int, where: str
) -> tuple[str, ...]:
    """Check images [n, ...] with values from 0 to `brightest` and labels [n] from 0 to `classes` - 1.

    Returns what is odd and may be right, for the log. Raises DataError when pixels are not finite, out of range or on
    another scale, when labels are none, or when there are not as many of them.
    """
    if len(pixels) != len(labels) or not len(labels):
        raise DataError(f"{where}: expected as many labels as images, got {len(pixels)} images, {len(labels)} labels")
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where}: expected finite pixels, got NaN or infinity in {_images_not_finite(pixels)} images")
    if low < 0 or high > brightest:
        raise DataError(f"{where}: expected pixels from 0 to {brightest:g}, got {low:g} to {high:g}: another scale?")
    if high <= brightest / 8:
        raise DataError(
            f"{where}: expected pixels from 0 to {brightest:g}, the brightest of {len(pixels)} images is {high:g}: "
            "were they scaled before, or are they empty?"
        )
    if low == high:
        raise DataError(f"{where}: all pixels of {len(pixels)} images are {low:g}: are the images empty?")
    return _labels(labels, classes, where)


def _numbers(column: Numbers, given: Values, counts: str, where: str) -> Checked:
    known = given[~np.isnan(given)]
    beyond = known[(known < column.low) | (known > column.high)]
    if len(beyond) * 2 > len(known) or len(beyond) > max(FEW, OUTSIDE_SHARE * len(known)):
        raise DataError(_another_unit(column, known, beyond, where))
    kept = np.where((given < column.low) | (given > column.high), np.nan, given)
    level = logging.INFO
    if len(beyond):
        level = logging.WARNING
        counts += f", {len(beyond)} outside {column.range} ({_some(beyond)}): treated as missing"
    known = kept[~np.isnan(kept)]
    if len(known):
        counts += f"; from {known.min():g} to {known.max():g} {column.unit}, median {np.median(known):g}"
    if len(known) >= FIRM and column.spread is not None and float(known.std()) < column.spread / 5:
        level = logging.WARNING
        counts += (
            f"; hardly varies (standard deviation {known.std():.3g}, usual {column.spread:g}): is it the right unit?"
        )
    return Checked(values=kept, text=counts, level=level)


def _another_unit(column: Numbers, known: Values, beyond: Values, where: str) -> str:
    same = len(np.unique(beyond)) == 1 and len(beyond) > 1
    advice = (
        f"; all of them are {beyond[0]:g}: if that means not measured, leave these cells empty"
        if same
        else f", their median is {np.median(beyond):g}{column.other_unit(beyond)}; convert the column to "
        f"{column.unit}, and leave a cell empty where nothing was measured"
    )
    return (
        f"{where}: column {column.name}: expected values of {column.range}, "
        f"{len(beyond)} of {len(known)} lie outside{advice}"
    )


def _codes(column: Codes, given: Values, counts: str, where: str, lines: Sequence[int] | None) -> Checked:
    codes = sorted(column.codes)
    wrong = np.flatnonzero(~np.isnan(given) & ~np.isin(given, codes))
    if len(wrong):
        at = "" if lines is None else f" line {lines[wrong[0]]}"
        more = f"; {len(wrong)} such values in the column ({_some(given[wrong])})" if len(wrong) > 1 else ""
        raise DataError(
            f"{where}{at}: expected one of {codes} in column {column.name}, got {given[wrong[0]]:g}{more}: "
            f"{', '.join(f'{code} {meaning}' for code, meaning in column.codes.items())}{_shifted(codes, given)}"
        )
    found = {code: int((given == code).sum()) for code in codes}
    text = "; " + ", ".join(f"{code}: {count}" for code, count in found.items() if count) if any(found.values()) else ""
    return Checked(values=given, text=counts + text, level=logging.INFO)


def _shifted(codes: Sequence[int], given: Values) -> str:
    known = given[~np.isnan(given)]
    for shift, advice in ((1, "subtract 1"), (-1, "add 1")):
        if np.isin(known - shift, codes).all():
            return f"; do the codes begin at {codes[0] + shift} in this file? Then {advice}"
    return ""


def _labels(labels: NDArray[Any], classes: int, where: str) -> tuple[str, ...]:
    low, high = float(labels.min()), float(labels.max())
    if not np.isin(labels, np.arange(classes)).all():
        hint = f": do the labels begin at 1? {classes} is the highest" if low >= 1 and high == classes else ""
        raise DataError(f"{where}: expected labels from 0 to {classes - 1}, got {low:g} to {high:g}{hint}")
    if low == high:
        return (f"{where}: all {len(labels)} labels are {low:g}: nothing can be told apart",)
    return ()


def _images_not_finite(pixels: NDArray[Any]) -> int:
    return int((~np.isfinite(pixels)).reshape(len(pixels), -1).any(axis=1).sum())


def _some(values: Values) -> str:
    """The first MOST_TOLD different values, in order."""
    different = np.unique(values)
    return ", ".join(f"{value:g}" for value in different[:MOST_TOLD]) + (", ..." if len(different) > MOST_TOLD else "")
