"""Patients of the four hospitals of UCI Heart Disease: the shipped table, a site's own file, rows to numbers.

What lives here: reading, checking and preparing. What may not: torch, so that data are handed out without it.
A site's folder holds `heart_disease.csv` with that site's patients only, columns as shipped (see data/LICENSE for their
meaning and origin). Preparation needs nothing from other sites: a missing number becomes the site's own median, or a
fixed reference where the site never measured (Switzerland has no cholesterol); scales and columns are the same
everywhere.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path

from fedbus.errors import DataError

FILE_NAME = "heart_disease.csv"
HOSPITALS = ("cleveland", "hungary", "switzerland", "va-long-beach")
MISSING = frozenset({"", "?", "na", "nan"})

# column: (reference, spread), rounded from the published cohort; the same at every site whatever its patients
NUMBERS = {
    "age": (54.0, 9.0),
    "trestbps": (132.0, 19.0),
    "chol": (220.0, 60.0),
    "thalach": (138.0, 26.0),
    "oldpeak": (0.9, 1.1),
}
ZERO_IS_MISSING = frozenset({"trestbps", "chol"})
FLAGS = ("sex", "fbs", "exang")
CATEGORIES = {"cp": (1, 2, 3, 4), "restecg": (0, 1, 2)}
LABEL = "num"
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
    """Read and prepare one site's file; DataError says which line and column cannot be used."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise DataError(
            f"expected {FILE_NAME} in {path.parent}, found none; write one hospital's share with "
            f"`python -m fedbus.tasks.heart_disease --hospital {HOSPITALS[0]} --out {path.parent}`"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path} cannot be read as UTF-8 text: {exc}") from exc
    reader = csv.DictReader(text.splitlines())
    lacking = [c for c in (*NUMBERS, *FLAGS, *CATEGORIES, LABEL) if c not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(f"{path}: expected the columns of the shipped {FILE_NAME}, {', '.join(lacking)} not found")
    rows = [_parse(row, f"{path} line {reader.line_num}") for row in reader]
    if not rows:
        raise DataError(f"{path} has a header and no patients")
    return _prepare(rows)


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


def _parse(row: Mapping[str, str | None], where: str) -> dict[str, float | None]:
    parsed: dict[str, float | None] = {}
    for column in (*NUMBERS, *FLAGS, *CATEGORIES, LABEL):
        text = (row[column] or "").strip()
        try:
            parsed[column] = None if text.lower() in MISSING else float(text)
        except ValueError as exc:
            raise DataError(f"{where}: expected a number or nothing in column {column}, got {text!r}") from exc
        if not math.isfinite(parsed[column] or 0.0):
            raise DataError(f"{where}: expected a finite number in column {column}, got {text!r}")
    for column, allowed in chain(CATEGORIES.items(), ((flag, (0, 1)) for flag in FLAGS), [(LABEL, range(5))]):
        if parsed[column] is not None and parsed[column] not in allowed:
            raise DataError(f"{where}: expected one of {list(allowed)} in column {column}, got {row[column]!r}")
    if parsed[LABEL] is None:
        raise DataError(f"{where}: the diagnosis (column {LABEL}) is missing")
    for column in ZERO_IS_MISSING:
        parsed[column] = parsed[column] or None
    return parsed


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
