"""A data check in the terminal and on a page."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.cli.tables import job_tables, print_tables
from fedbus.console.report.job import job_page
from fedbus.core.check.report import findings
from fedbus.core.protocol.answers import CheckReport, JobDetail, as_json
from fedbus.core.protocol.statistics import ClassLoss, Column, Distribution, Labels, Masks, Region, Statistics
from fedbus.report.page import as_html

SPREAD = Distribution(count=100, quantiles=(None, 40.0, 54.0, 60.0, None))
GOOD = Statistics(
    examples=100,
    columns=(Column(name="chol", unit="mg/dL", missing=5, values=SPREAD),),
    labels=Labels(counts={"0": 60, "1": 40}, expected=(0, 1)),
)
BAD = Statistics(
    examples=100,
    columns=(Column(name="chol", unit="mg/dL", missing=100, coded={"0": 100}),),
    labels=Labels(counts={"1": 60, "2": 40}, expected=(0, 1)),
    masks=Masks(empty=None, regions={"1": Region(studies=100, volume=SPREAD, centre=(SPREAD,) * 3)}),
)


def detail(**keys: Any) -> JobDetail:
    sites = {"cleveland": GOOD, "switzerland-of-a-long-name": BAD}
    report = CheckReport(
        findings=findings(sites),
        sites=sites,
        cannot={"va": "its task has no statistics to give"},
        losses={"cleveland": {"0": ClassLoss(examples=60, mean=0.3, variance=0.1)}},
    )
    result = {"check": as_json(report)}
    return JobDetail(job="look-1", spec={"kind": "data-check"}, state="finished", result=result, **keys)


def test_the_findings_fit_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_tables(*job_tables(detail()))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("begin at 1", "never measured chol: it is 0 in every row", "nothing is known of the data of va"):
        assert words in shown


def test_the_page_has_findings_and_what_each_site_said() -> None:
    html = as_html(job_page(detail(), (), now=0.0))
    for words in (
        "begin at 1",
        "What the sites said of their data",
        "few",
        "mg/dL",
        "What the model says of the labels",
    ):
        assert words in html
