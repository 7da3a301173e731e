"""Patients of the four hospitals of UCI Heart Disease: the shipped table, a site's own file, rows to numbers.

What lives here: what the columns hold, and preparing. What may not: torch, so that data are handed out without it.
A site's folder holds `heart_disease.csv` with that site's patients only, columns as shipped (see data/LICENSE for their
meaning and origin; `table` for how a file may be written). Preparation needs nothing from other sites: a missing number
becomes the site's own median, or a fixed reference where the site never measured (Switzerland has no cholesterol);
scales and columns are the same everywhere.

A number outside its plausible range is treated as missing, and counted in the site's log; a column with many of them is
refused (see `plausible`). The ranges are wide: what a living adult on a treadmill may have, not what is healthy. All
920 shipped patients lie within them (age 28 to 77, trestbps 80 to 200, chol 85 to 603, thalach 60 to 202, oldpeak -2.6
to 6.2). -9 is UCI's own code for "not measured" (heart-disease.names, attribute information), and UCI's files of
Switzerland, Hungary and Long Beach write cholesterol and pressure 0 for it; in the shipped table these are empty.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fedbus.errors import DataError
from fedbus.tasks.plausible import Codes, Numbers, check
from fedbus.tasks.table import Table, read_table, refuse

log = logging.getLogger(__name__)

FILE_NAME = "heart_disease.csv"
HOSPITALS = ("cleveland", "hungary", "switzerland", "va-long-beach")
NOT_MEASURED = (-9.0,)
NOT_MEASURED_OR_ZERO = (-9.0, 0.0)
YES_NO = {0: "no", 1: "yes"}

# column: (reference, spread), rounded from the published cohort; the same at every site whatever its patients
NUMBERS = {
    "age": (54.0, 9.0),
    "trestbps": (132.0, 19.0),
    "chol": (220.0, 60.0),
    "thalach": (138.0, 26.0),
    "oldpeak": (0.9, 1.1),
}
_YEAR = {"months": 1 / 12, "days": 1 / 365.25}
_PRESSURE = {"kPa": 7.50062, "cmHg": 10.0}
_CHOL = {"mmol/L": 38.67, "g/L": 100.0}
_RATE = {"beats per second": 60.0}
_DEPRESSION = {"µV": 0.01, "cm": 10.0}
PLAUSIBLE = (
    Numbers(name="age", unit="years", low=18, high=110, missing=NOT_MEASURED, other_units=_YEAR),
    Numbers(
        name="trestbps", unit="mmHg", low=50, high=300, missing=NOT_MEASURED_OR_ZERO, other_units=_PRESSURE, spread=19
    ),
    Numbers(name="chol", unit="mg/dL", low=60, high=700, missing=NOT_MEASURED_OR_ZERO, other_units=_CHOL, spread=60),
    Numbers(name="thalach", unit="beats/min", low=40, high=250, missing=NOT_MEASURED, other_units=_RATE, spread=26),
    Numbers(name="oldpeak", unit="mm", low=-5, high=10, missing=NOT_MEASURED, other_units=_DEPRESSION, spread=1.1),
)
FLAGS = ("sex", "fbs", "exang")
CATEGORIES = {"cp": (1, 2, 3, 4), "restecg": (0, 1, 2)}
LABEL = "num"
CODES = (
    Codes(name="sex", codes={0: "female", 1: "male"}, missing=NOT_MEASURED),
    Codes(name="fbs", codes=YES_NO, missing=NOT_MEASURED),
    Codes(name="exang", codes=YES_NO, missing=NOT_MEASURED),
    Codes(
        name="cp",
        codes={1: "typical angina", 2: "atypical angina", 3: "non-anginal pain", 4: "asymptomatic"},
        missing=NOT_MEASURED,
    ),
    Codes(
        name="restecg", codes={0: "normal", 1: "ST-T abnormality", 2: "ventricular hypertrophy"}, missing=NOT_MEASURED
    ),
    Codes(name=LABEL, codes={0: "healthy", **dict.fromkeys(range(1, 5), "disease")}, missing=NOT_MEASURED),
)
UNUSED = (
    Codes(name="slope", codes={1: "up", 2: "flat", 3: "down"}, missing=(-9.0, 0.0)),
    Codes(name="ca", codes={0: "none", 1: "one", 2: "two", 3: "three"}, missing=NOT_MEASURED),
    Codes(name="thal", codes={3: "normal", 6: "fixed defect", 7: "reversible defect"}, missing=(-9.0, 0.0)),
)
"""Columns of the shipped table that the task leaves out, for most hospitals lack them; a data check says which."""
COLUMNS = tuple(column.name for column in (*PLAUSIBLE, *CODES))
NUM_FEATURES = len(NUMBERS) + len(FLAGS) + sum(map(len, CATEGORIES.values()))

TEST_SHARE = 0.3
SPLIT_SEED = 45  # the data set's number at UCI; a patient is a test patient in every job or in none


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """Prepared patients: `features` [n][NUM_FEATURES], `labels` [n], 1.0 where a vessel is narrowed by over half."""

    features: Sequence[Sequence[float]]
    labels: Sequence[float]

    def pick(self, rows: Sequence[int]) -> Patients:
        return Patients(features=[self.features[i] for i in rows], labels=[self.labels[i] for i in rows])


def read_patients(path: Path) -> Patients:
    """Read, check and prepare one site's file; log what was found in each column, with counts.

    DataError says which line and column cannot be used, and why.
    """
    try:
        table = read_table(path, COLUMNS)
    except FileNotFoundError as exc:
        raise DataError(
            f"expected {FILE_NAME} in {path.parent}, found none; write one hospital's share with "
            f"`python -m fedbus.tasks.heart_disease --hospital {HOSPITALS[0]} --out {path.parent}`"
        ) from exc
    columns = _checked(table)
    _check_diagnoses(table, columns[LABEL])
    return _prepare([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def split(patients: Patients) -> tuple[Patients, Patients]:
    """Return (train, test): TEST_SHARE of each class is for test, chosen by a fixed seed.

    Raises DataError when a side would be empty.
    """
    rng = random.Random(SPLIT_SEED)
    test: set[int] = set()
    for label in (0.0, 1.0):
        rows = [i for i, found in enumerate(patients.labels) if found == label]
        rng.shuffle(rows)
        test.update(rows[: round(TEST_SHARE * len(rows))])
    train = [i for i in range(len(patients.labels)) if i not in test]
    if not test or not train:
        raise DataError(f"expected enough patients to train and to test, got {len(patients.labels)}")
    return patients.pick(train), patients.pick(sorted(test))


def write_site_data(folder: Path, hospital: str) -> int:
    """Write `hospital`'s patients of the shipped table to `folder`, made if absent; return their number.

    Raises DataError for a hospital that is not in the table.
    """
    if hospital not in HOSPITALS:
        raise DataError(f"expected a hospital of {', '.join(HOSPITALS)}; got {hospital!r}")
    shipped = files("fedbus.tasks").joinpath("data", FILE_NAME).read_text(encoding="utf-8")
    header, *rows = shipped.splitlines()
    own = [row for row in rows if row.startswith(f"{hospital},")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).write_text("\n".join([header, *own]) + "\n", encoding="utf-8")
    return len(own)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one hospital's share of the shipped table, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fedbus.tasks.heart_disease",
        description="Write one hospital's patients of UCI Heart Disease (CC BY 4.0) as the data of a site.",
    )
    parser.add_argument("--hospital", required=True, choices=HOSPITALS)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder given to fedbus site --data")
    chosen = parser.parse_args(arguments)
    patients = write_site_data(chosen.out, chosen.hospital)
    print(f"wrote {chosen.out / FILE_NAME}: {patients} patients of {chosen.hospital}")
    return 0


def _checked(table: Table) -> dict[str, list[float | None]]:
    """Return the columns without what is implausible, after a line for each of them in the log."""
    numbers = table.numbers(COLUMNS)
    columns = {}
    for column in (*PLAUSIBLE, *CODES):
        found = check(column, numbers[column.name], where=str(table.path), lines=table.lines)
        log.log(found.level, "%s: %s", FILE_NAME, found.text)
        columns[column.name] = [None if math.isnan(value) else value for value in found.values.tolist()]
    for note in table.notes:
        log.info("%s: %s", FILE_NAME, note)
    if table.copies:
        level = logging.WARNING if table.copies * 10 > len(table.rows) else logging.INFO
        words = "%s: %d of %d rows are copies of others; they are kept: remove patients who are in it twice"
        log.log(level, words, FILE_NAME, table.copies, len(table.rows))
    return columns


def _check_diagnoses(table: Table, found: Sequence[float | None]) -> None:
    missing = [
        f"line {line}: the diagnosis (column {LABEL}) is missing"
        for line, value in zip(table.lines, found, strict=True)
        if value is None
    ]
    refuse(table.path, missing, advice="fill it in, or remove the line (is it one of totals?)")
    counts = Counter(found)
    if counts.keys() == {1.0, 2.0}:
        raise DataError(
            f"{table.path}: column {LABEL} has {counts[1.0]} times 1 and {counts[2.0]} times 2, never 0: do its codes "
            "begin at 1? expected 0 for healthy, 1 to 4 for disease"
        )
    if len({value == 0 for value in counts}) == 1:
        words = "%s: all %d patients are %s (column %s): nothing can be learnt from them alone, and there is no AUC"
        log.warning(words, FILE_NAME, len(found), "healthy" if 0.0 in counts else "ill", LABEL)


def _prepare(rows: Sequence[Mapping[str, float | None]]) -> Patients:
    medians = {}
    for column, (reference, _) in NUMBERS.items():
        found = [value for row in rows if (value := row[column]) is not None]
        medians[column] = statistics.median(found) if found else reference
    features = [_features(row, medians) for row in rows]
    return Patients(features=features, labels=[float((row[LABEL] or 0) > 0) for row in rows])


def _features(row: Mapping[str, float | None], medians: Mapping[str, float]) -> list[float]:
    numbers = []
    for column, (reference, spread) in NUMBERS.items():
        value = row[column]
        numbers.append(((medians[column] if value is None else value) - reference) / spread)
    flags = [0.5 if (value := row[flag]) is None else value for flag in FLAGS]
    one_hot = [float(row[column] == code) for column, codes in CATEGORIES.items() for code in codes]
    return [*numbers, *flags, *one_hot]
