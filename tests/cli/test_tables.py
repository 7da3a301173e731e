"""What people see of a job: the rule that weighs its updates, where the job's strategy is one that chooses."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from fedbus.cli.tables import job_tables, jobs_table

RULE = "calibrated: the slowest site, va, takes 9.7x the fastest, measured over 12 sites"
JOB: dict[str, Any] = {
    "job": "heart-1",
    "task": "heart_disease",
    "state": "running",
    "version": 7,
    "updates": 15,
    "says": "waiting for 1 more site (3 of 4 in the buffer)",
    "submitted_by": "submitter",
    "submitted_at": None,
    "started_at": None,
    "ended_at": None,
    "sites": {},
    "refusals": [],
    "incidents": [],
}


def shown(*tables: Any) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get()


@pytest.mark.parametrize("detail", [False, True])
def test_the_rule_and_its_reason_are_shown(detail: bool) -> None:
    job = JOB | {"rule": RULE}
    text = shown(*job_tables(job)) if detail else shown(jobs_table([job]))
    assert RULE in text
    assert JOB["says"] in text


@pytest.mark.parametrize("rule", [{}, {"rule": None}], ids=["an older aggregator", "a strategy that does not choose"])
def test_without_a_rule_nothing_is_said_of_one(rule: dict[str, None]) -> None:
    assert "rule" not in shown(*job_tables(JOB | rule))
    assert "None" not in shown(jobs_table([JOB | rule]))


def test_best_version_and_what_is_not_finite_are_shown_and_sites_that_sent_nothing() -> None:
    numbers = {"updates": 0, "refused": 0, "mean_staleness": 0.0}
    result = {
        "reason": "version 3 scores NaN or infinity at every site that scored it: mercy",
        "exported": "best/v1",
        "best": {"version": 1, "metric": "loss", "value": 0.25, "exported": "best/v1"},
        "scores": {
            "mercy": {"metrics": {"accuracy": 0.5}, "num_examples": 9, "not_finite": ["loss"]},
            "ucsf": {"metrics": {}, "num_examples": 0, "failed": "no test data"},
        },
    }
    text = shown(*job_tables(JOB | {"result": result, "sites": {"mercy": numbers | {"updates": 6}, "ucsf": numbers}}))
    assert "version 1, loss 0.25: best/v1" in text
    (mercy,) = [line for line in text.splitlines() if line.startswith("mercy ")]
    assert mercy.split() == ["mercy", "6", "0", "0.0", "0.500", "not", "finite"]
    (ucsf,) = [line for line in text.splitlines() if line.startswith("ucsf ") and "could" not in line]
    assert ucsf.split() == ["ucsf", "0", "0", "0.0"]
    assert "ucsf could not score the last version: no test data" in text
