"""What a data check has found, for people: the findings, the worst first, and what the sites said of their data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedbus.core.check.compare import said as counted
from fedbus.core.protocol.answers import CheckReport
from fedbus.core.protocol.statistics import Counts, Distribution, Finding, Statistics
from fedbus.runtime.terminal import said

MOST_VALUES = 12


def check_tables(report: CheckReport) -> Iterator[RenderableType]:
    """The report as tables that fit 80 columns."""
    if not report.findings and report.sites:
        yield said("nothing was found: the sites' data look alike")
    if report.findings:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("severity", "what was found"):
            table.add_column(column, overflow="fold")
        for found in report.findings:
            table.add_row(said(found.severity), _finding(found))
        yield table
    if report.sites:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("site", "examples", "what its data are"):
            table.add_column(column, overflow="fold")
        for site, statistics in report.sites.items():
            table.add_row(said(site), said(counted(statistics.examples)), said("; ".join(_facts(statistics))))
        yield table
    for site, why in report.cannot.items():
        yield said(f"nothing is known of the data of {site}: {why}")


def _finding(found: Finding) -> Text:
    text = said(found.text)
    if found.figure:
        text.append(f"\n{said(found.figure).plain}", style="dim")
    if found.advice:
        text.append(f"\n→ {said(found.advice).plain}")
    return text


def _facts(statistics: Statistics) -> Iterator[str]:
    if statistics.labels is not None:
        of = "masks with class" if statistics.labels.of_masks else "labels"
        yield f"{of} {_counts(statistics.labels.counts)}"
    if statistics.images is not None:
        images = statistics.images
        yield _counts(images.dtypes)
        if images.orientations:
            yield f"orientation {_counts(images.orientations)}"
        if any(spread.median is not None for spread in images.spacing):
            yield f"{_axes(images.size)} voxels of {_axes(images.spacing)} mm"
        if (spread := images.intensity.get("p99")) is not None and spread.median is not None:
            yield f"bright voxels {spread.median:g}"
    if statistics.masks is not None:
        yield f"{counted(statistics.masks.empty)} empty masks"
    lacking = [f"{c.name} {counted(c.missing)}" for c in statistics.columns if c.missing != 0 and not c.absent]
    if lacking:
        yield f"missing {', '.join(lacking)}"
    problems = {kind: count for kind, count in statistics.problems.items() if count != 0}
    if problems:
        yield _counts(problems)


def _counts(counts: Counts | Mapping[str, int]) -> str:
    shown = [f"{word}: {counted(count)}" for word, count in counts.items()]
    return ", ".join(shown[:MOST_VALUES]) + (", ..." if len(shown) > MOST_VALUES else "")


def _axes(spreads: tuple[Distribution, ...]) -> str:
    return " x ".join("?" if spread.median is None else f"{spread.median:g}" for spread in spreads)
