"""What a data check has found: the findings, and what each site has said of its data, as counts and medians."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fedbus.console.outcome import check_of
from fedbus.core.check.compare import said
from fedbus.core.check.losses import overall
from fedbus.core.protocol.answers import CheckReport, JobDetail, VersionLine
from fedbus.core.protocol.statistics import AXES, Column, Counts, Distribution, Finding, Statistics
from fedbus.report import page as p

_SEVERITIES: Mapping[str, p.Severity] = {"fault": p.Severity.PROBLEM, "warning": p.Severity.WARNING}
LEFT_OUT = (
    "Every site has computed these numbers at home. Counts below a minimum are withheld and said as 'few', the others "
    "are rounded to its multiples; medians have three digits. No study, file name or patient is part of it."
)


def check_sections(detail: JobDetail, _: Sequence[VersionLine]) -> Iterator[p.Section]:
    """Findings, and a table for each kind of data; nothing for a job without a check."""
    report = check_of(detail)
    if report is None:
        return
    yield p.Section(title="What the data check has found", blocks=[p.Findings(findings=_findings(report))])
    tables = [*_examples(report), *_labels(report), *_images(report), *_masks(report), *_columns(report)]
    yield p.Section(title="What the sites said of their data", blocks=[p.Text(text=LEFT_OUT), *tables])
    if report.losses:
        rows = [(site, *_loss(report, site)) for site in report.losses]
        table = p.Table(columns=["site", "mean loss on its own labels", "standard error"], rows=rows)
        yield p.Section(title="What the model says of the labels", blocks=[table])


def _findings(report: CheckReport) -> list[p.Finding]:
    found = [_finding(one) for one in report.findings]
    lost = [
        p.Finding(severity=p.Severity.NOTE, text=f"Nothing is known of the data of {site}", detail=why)
        for site, why in report.cannot.items()
    ]
    return [*found, *lost] or [p.Finding(severity=p.Severity.GOOD, text="The sites' data look alike")]


def _finding(found: Finding) -> p.Finding:
    advice = found.advice[:1].upper() + found.advice[1:]
    detail = ". ".join(part for part in (found.figure, advice) if part)
    severity = _SEVERITIES.get(found.severity, p.Severity.NOTE)
    return p.Finding(severity=severity, text=found.text, detail=detail)


def _examples(report: CheckReport) -> Iterator[p.Block]:
    rows = [
        (site, said(found.examples), said(found.copies), _counts(found.problems))
        for site, found in report.sites.items()
    ]
    yield p.Table(columns=["site", "examples", "copies of others", "cannot be used"], rows=rows)


def _labels(report: CheckReport) -> Iterator[p.Block]:
    having = {site: found.labels for site, found in report.sites.items() if found.labels is not None}
    values = sorted({value for labels in having.values() for value in labels.counts}, key=_order)
    if having:
        rows = [(site, *(said(labels.counts.get(value, 0)) for value in values)) for site, labels in having.items()]
        what = "masks" if any(labels.of_masks for labels in having.values()) else "examples"
        yield p.Table(columns=["site", *(f"class {value}" for value in values)], rows=rows, caption=f"{what} by class")


def _images(report: CheckReport) -> Iterator[p.Block]:
    rows = [
        (
            site,
            _axes(images.size),
            _axes(images.spacing),
            _counts(images.orientations),
            _counts(images.dtypes),
            *(_median(images.intensity.get(name)) for name in ("p1", "p50", "p99")),
        )
        for site, found in report.sites.items()
        if (images := found.images) is not None
    ]
    if rows:
        columns = ["site", "voxels", "spacing, mm", "orientation", "stored as", "dark", "middle", "bright"]
        caption = "medians over the images; dark, middle and bright are the percentiles 1, 50 and 99 of an image"
        yield p.Table(columns=columns, rows=rows, caption=caption)


def _masks(report: CheckReport) -> Iterator[p.Block]:
    rows: list[tuple[p.Cell, ...]] = [
        (site, f"class {value}", said(region.studies), _median(region.volume), *map(_median, region.centre))
        for site, found in report.sites.items()
        if found.masks is not None
        for value, region in found.masks.regions.items()
    ]
    if rows:
        columns = ["site", "class", "masks", "volume, ml", *AXES]
        yield p.Table(columns=columns, rows=rows, caption="medians; where the middle of a class lies, 0 to 1 by axis")


def _columns(report: CheckReport) -> Iterator[p.Block]:
    names = dict.fromkeys(column.name for found in report.sites.values() for column in found.columns)
    if names:
        rows = [(name, *(_column(found, name) for found in report.sites.values())) for name in names]
        caption = "median of each column, or its codes; in brackets how many are missing"
        yield p.Table(columns=["column", *report.sites], rows=rows, caption=caption)


def _column(found: Statistics, name: str) -> str:
    column = next((column for column in found.columns if column.name == name), Column(name=name, absent=True))
    if column.absent:
        return "no such column"
    known = _median(column.values)
    middle = _counts(column.levels) if column.levels else f"{known} {column.unit}".strip() if known else "-"
    return f"{middle} ({said(column.missing)})"


def _loss(report: CheckReport, site: str) -> tuple[float, float]:
    return overall(report.losses[site])


def _median(spread: Distribution | None) -> str:
    return "" if spread is None or spread.median is None else f"{spread.median:g}"


def _axes(spreads: Sequence[Distribution]) -> str:
    return " x ".join(_median(spread) or "?" for spread in spreads)


def _counts(counts: Counts) -> str:
    return ", ".join(f"{word}: {said(count)}" for word, count in counts.items() if count != 0)


def _order(word: str) -> tuple[float, str]:
    try:
        return float(word), ""
    except ValueError:
        return float("inf"), word
