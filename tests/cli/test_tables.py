"""What people see of a job: the rule that weighs its updates, where the job's strategy is one that chooses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from fedbus.cli.tables import job_tables, jobs_table, print_tables, sites_table
from fedbus.cli.watch import print_event
from fedbus.core.protocol.answers import JobDetail, JobLine, SiteLine, from_json
from fedbus.core.protocol.messages import Event

RULE = "calibrated: the slowest site, va, takes 9.7x the fastest, measured over 12 sites"
JOB: dict[str, Any] = {
    "job": "heart-1",
    "task": "heart_disease",
    "state": "running",
    "version": 7,
    "updates": 15,
    "says": "waiting for 1 more site, buffer 3 of 4",
    "submitted_by": "submitter",
    "submitted_at": None,
    "started_at": None,
    "ended_at": None,
    "sites": {},
    "refusals": [],
    "incidents": [],
}


def detail(**keys: Any) -> JobDetail:
    return from_json(JobDetail, {"job": JOB | keys})


def line(**keys: Any) -> JobLine:
    return from_json(JobLine, JOB | keys)


def shown(*tables: Any, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get()


@pytest.mark.parametrize("whole", [False, True])
def test_the_rule_and_its_reason_are_shown(whole: bool) -> None:
    text = shown(*job_tables(detail(rule=RULE))) if whole else shown(jobs_table([line(rule=RULE)]))
    assert RULE in text
    assert JOB["says"] in text


@pytest.mark.parametrize("rule", [{}, {"rule": None}], ids=["an older aggregator", "a strategy that does not choose"])
def test_without_a_rule_nothing_is_said_of_one(rule: dict[str, None]) -> None:
    assert "rule" not in shown(*job_tables(detail(**rule)))
    assert "None" not in shown(jobs_table([line(**rule)]))


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
    text = shown(*job_tables(detail(result=result, sites={"mercy": numbers | {"updates": 6}, "ucsf": numbers})))
    assert "version 1, loss 0.25: best/v1" in text
    (mercy,) = [line for line in text.splitlines() if line.startswith("mercy ")]
    assert mercy.split() == ["mercy", "6", "0", "0.0", "0.500", "not", "finite"]
    (ucsf,) = [line for line in text.splitlines() if line.startswith("ucsf ") and "could" not in line]
    assert ucsf.split() == ["ucsf", "0", "0", "0.0"]
    assert "ucsf could not score the last version: no test data" in text


def test_what_the_sites_measured_of_the_best_version_fits_80_columns_beside_the_last() -> None:
    def score(auc: float) -> dict[str, Any]:
        return {"metrics": {"accuracy": 0.5, "auc": auc, "loss": 0.25}, "num_examples": 9}

    numbers = {"updates": 400, "refused": 1, "mean_staleness": 0.4}
    best = {"version": 294, "metric": "auc", "value": 0.9, "exported": "best/v294", "scores": {"cleveland": score(0.9)}}
    result = {"best": best, "scores": {"cleveland": score(0.8)}}
    text = shown(*job_tables(detail(result=result, sites={"cleveland": numbers})), width=80)
    last, of_best = (line.split() for line in text.splitlines() if line.startswith("cleveland "))
    assert last == ["cleveland", "400", "1", "0.4", "0.500", "0.800", "0.250"]
    assert of_best == ["cleveland", "0.500", "0.900", "0.250"]
    assert "version 294, the best  accuracy  auc    loss" in text


def test_scores_of_many_classes_stand_in_tables_of_their_own_whose_names_are_whole() -> None:
    classes = ["left kidney", "right kidney", "tumour", "cyst", "spleen"]
    metrics = {"dice": 0.5} | {f"dice/{name}": 0.125 for name in classes} | {"loss": 0.25}
    numbers = {"updates": 400, "refused": 1, "mean_staleness": 0.4}
    result = {"scores": {"mercy": {"metrics": metrics, "num_examples": 9}}}
    text = shown(*job_tables(detail(result=result, sites={"mercy": numbers})), width=80)
    assert all(f"dice/{name}" in text for name in classes)
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("mercy ")] == [
        ["400", "1", "0.4"],
        ["0.500", "0.125", "0.125"],
        ["0.125", "0.125", "0.125", "0.250"],
    ]


@pytest.mark.parametrize("ended", [False, True], ids=["while it runs", "when it has ended"])
def test_a_job_that_evaluates_shows_a_matrix_for_each_metric(ended: bool) -> None:
    models = [
        {
            "model": f"heart-0a, version {version}",
            "means": {"auc": 0.75},
            "scores": {
                "mercy": {"metrics": {"auc": 0.7 + version / 10}, "num_examples": 9},
                "ucsf": {"metrics": {}, "num_examples": 9, "not_finite": ["auc"]},
            },
            "failed": {"va": "no test data"} if version else {},
        }
        for version in (0, 1)
    ]
    lines = shown(*job_tables(detail(**({"result": {"models": models}} if ended else {"models": models}))), width=80)
    rows = [" ".join(line.split()) for line in lines.splitlines()]
    for row in (
        "model 1 heart-0a, version 1",
        "auc examples model 0 model 1",
        "mercy 9 0.700 0.800",
        "ucsf 9 not finite not finite",
        "all, by examples 0.750 0.750",
        "va could not score model 1: no test data",
    ):
        assert row in rows


def test_a_job_that_was_ended_shows_of_which_version_each_score_is() -> None:
    numbers = {"updates": 0, "refused": 0, "mean_staleness": 0.0}
    scores = {
        "mercy": {"metrics": {"loss": 0.25}, "num_examples": 9},
        "ucsf": {"metrics": {"loss": 0.5}, "num_examples": 9, "version": 5},
    }
    sites = dict.fromkeys(("mercy", "ucsf", "va"), numbers)
    lines = shown(*job_tables(detail(result={"scores": scores}, sites=sites))).splitlines()
    found = {words[0]: words[4:] for line in lines if (words := line.split()) and words[0] in sites}
    assert found == {"mercy": ["7", "0.250"], "ucsf": ["5", "0.500"], "va": []}


# ------------------------------------------------------------------ what sites and others say

HOSTILE = "\x1b[2J\r\n\u202e[red]:smile:"
SHOWN = r"\x1b[2J\r\n\u202e[red]:smile:"


def hostile_job() -> dict[str, Any]:
    """A job in which every text comes from somebody who wants to write elsewhere on the screen."""
    numbers = {"state": HOSTILE, "activity": HOSTILE, "updates": 1, "refused": 0, "mean_staleness": 0.0}
    score = {HOSTILE: {"metrics": {HOSTILE: 0.5}}}
    texts = dict.fromkeys(("job", "task", "state", "says", "rule", "submitted_by"), HOSTILE)
    upload = {"site": HOSTILE, "chunks": 1, "count": 2, "age_s": 1.0, "update_id": HOSTILE}
    return {
        **texts,
        "sites": {HOSTILE: numbers},
        "declined": {HOSTILE: HOSTILE},
        "receiving": [upload],
        "refusals": [{"updates": 1, "reason": HOSTILE}],
        "incidents": [{"at": 1.0, "kind": "x", "text": HOSTILE}],
        "result": {"reason": HOSTILE, "exported": HOSTILE, "scores": score},
    }


def hostile_site() -> dict[str, Any]:
    activity = {"activity": HOSTILE, "version": 1, "step": 1, "steps": 2, "detail": HOSTILE}
    texts = dict.fromkeys(("site", "state", "reason", "device", "fedbus_version"), HOSTILE)
    return {**texts, "since_s": 1.0, "heard_s": 1.0, "tasks": [HOSTILE], "jobs": {HOSTILE: activity}}


@pytest.mark.parametrize(
    ("tables", "times"),
    [
        (lambda: job_tables(detail(**hostile_job())), 18),
        (lambda: [jobs_table([line(**hostile_job())])], 5),
        (lambda: [sites_table([from_json(SiteLine, hostile_site())])], 6),
    ],
    ids=["show", "jobs", "sites"],
)
def test_no_text_of_anybody_moves_the_cursor(tables: Any, times: int, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    print_tables(*tables())
    out = capsys.readouterr().out
    assert out.count(SHOWN) >= times
    assert all(line.isprintable() for line in out.split("\n"))


def test_an_event_is_one_line_of_text_and_as_json_stays_what_it_was(capsys: Any) -> None:
    event = Event(at=0.0, job=HOSTILE, site=HOSTILE, kind=HOSTILE, text=HOSTILE, facts={"x": HOSTILE})
    print_event(event, as_json=False)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    assert line.count(SHOWN) == 2
    print_event(event, as_json=True)
    line = capsys.readouterr().out
    assert line[:-1].isprintable()
    assert json.loads(line)["text"] == HOSTILE


def test_into_a_pipe_no_line_is_cut_or_padded(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    said = "it waits " * 50
    print_tables(*job_tables(detail(says=said)))
    lines = capsys.readouterr().out.splitlines()
    assert any(said.rstrip() in line for line in lines)
    assert lines == [line.rstrip() for line in lines]
