"""The job of the demo, its hospitals and what they will go through: all that a reader may want to change.

The paces are a spread of ten between the fastest and the slowest. The model is so small that a step costs well under a
millisecond, so a pause after each step stands for the work of a real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from fedbus.core.spec.training import TrainingSpec
from fedbus.tasks.heart_disease_data import FILE_NAME, HOSPITALS, read_patients, split, write_site_data

PACE_S: Final = {"cleveland": 0.015, "hungary": 0.02, "va-long-beach": 0.04, "switzerland": 0.15}

LATE: Final = "va-long-beach"
AWAY: Final = "hungary"
FIRST: Final = tuple(hospital for hospital in HOSPITALS if hospital != LATE)

# Versions at which it happens, not times: the same play on a slow and on a fast machine.
LATE_IS_STARTED_AT: Final = 3
AWAY_IS_STOPPED_AT: Final = 8
AWAY_IS_STARTED_AT: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Patients of one hospital: all, those kept for testing, and of these the healthy and the ill."""

    patients: int
    test_patients: int
    healthy: int
    ill: int


def job_text() -> str:
    """The job spec as shipped, in YAML."""
    return files("fedbus.demo").joinpath("job.yaml").read_text(encoding="utf-8")


def demo_job() -> TrainingSpec:
    """The job spec, parsed."""
    return TrainingSpec.parse_yaml(job_text())


def hand_out(folder: Path) -> dict[str, Cohort]:
    """Give every hospital a folder with its own patients and no others; return who they are."""
    cohorts = {}
    for hospital in HOSPITALS:
        patients = write_site_data(folder / hospital, hospital)
        _, test = split(read_patients(folder / hospital / FILE_NAME))
        ill = sum(label > 0 for label in test.labels)
        total = len(test.labels)
        cohorts[hospital] = Cohort(patients=patients, test_patients=total, healthy=total - ill, ill=ill)
    return cohorts
