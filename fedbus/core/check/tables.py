"""Columns of tables: not there, never measured, impossible values, another unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fedbus.core.check.compare import apart_by, enough, in_words, said, share, surely, times, unit_of
from fedbus.core.protocol.statistics import Column, Finding, Statistics

NEVER = 0.95
OFTEN = 0.3
MANY_IMPOSSIBLE = 0.1
WIDTHS = 1.5
"""A median that is so many times the others' middle half away from theirs is another quantity, or another unit."""


def of_tables(sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Findings on every column that some site has."""
    names = dict.fromkeys(column.name for found in sites.values() for column in found.columns)
    for name in names:
        columns = {site: column for site, found in sites.items() for column in found.columns if column.name == name}
        yield from _there(name, columns, sites)
        yield from _impossible(name, columns, sites)
        yield from _median(name, columns)


def _there(name: str, columns: Mapping[str, Column], sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    absent = [site for site, column in columns.items() if column.absent]
    shares = {
        site: share(column.missing, sites[site].examples) for site, column in columns.items() if site not in absent
    }
    never = [site for site, part in shares.items() if part >= NEVER]
    others = [part for site, part in shares.items() if site not in never]
    elsewhere = f"; elsewhere {min(others):.0%} to {max(others):.0%}" if others else ""
    for site in absent:
        yield Finding(
            kind="column-absent",
            severity="fault",
            sites=(site,),
            text=f"the table of {site} has no column {name}",
            advice="export it with this column, empty where nothing was measured",
        )
    if never:
        yield Finding(
            kind="never-measured",
            severity="warning" if others or len(shares) == 1 else "notice",
            sites=tuple(never),
            text=f"{in_words(never)} never measured {name}{_as_code([columns[site] for site in never])}",
            figure=", ".join(_part(site, columns[site], sites[site]) for site in never) + elsewhere,
            advice="the job's model learns nothing of it there; is the column lost in the export?",
        )
    for site, part in shares.items():
        usual = [value for other, value in shares.items() if other not in (site, *never)]
        if site not in never and part >= OFTEN and usual and max(usual) < part / 3:
            yield Finding(
                kind="often-missing",
                severity="notice",
                sites=(site,),
                text=f"{name} is often missing at {site}",
                figure=f"{_part(site, columns[site], sites[site])}; elsewhere {min(usual):.0%} to {max(usual):.0%}",
            )


def _part(site: str, column: Column, statistics: Statistics) -> str:
    return f"{site}: {said(column.missing)} of {said(statistics.examples)} missing{_coded(column)}"


def _coded(column: Column) -> str:
    codes = ", ".join(f"{said(count)} written as {code}" for code, count in column.coded.items())
    return f" ({codes})" if codes else ""


def _as_code(columns: Sequence[Column]) -> str:
    codes = sorted({code for column in columns for code, count in column.coded.items() if enough(count)})
    return f": it is {' or '.join(codes)} in every row" if codes else ""


def _impossible(name: str, columns: Mapping[str, Column], sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    for site, column in columns.items():
        if column.impossible == 0 or _is_label(column, sites[site]):
            continue
        part = share(column.impossible, sites[site].examples)
        is_code = column.low is None
        much = part >= MANY_IMPOSSIBLE or is_code
        range_ = (
            "" if column.low is None or column.high is None else f" ({column.low:g} to {column.high:g} {column.unit})"
        )
        yield Finding(
            kind="impossible-codes" if is_code else "impossible-values",
            severity="fault" if much else "notice",
            sites=(site,),
            text=f"{site} has values in {name} that are {'none of its codes' if is_code else f'impossible{range_}'}",
            figure=f"{said(column.impossible)} of {said(sites[site].examples)}{_middle(column)}",
            advice="another unit, another column, or a code for 'not measured' that is not known?",
        )


def _is_label(column: Column, statistics: Statistics) -> bool:
    """Whether the column holds the labels, of which `labels` says what is wrong."""
    return statistics.labels is not None and dict(column.levels) == dict(statistics.labels.counts)


def _middle(column: Column) -> str:
    if column.levels:
        return f"; {', '.join(f'{word}: {said(count)}' for word, count in column.levels.items())}"
    return "" if column.values.median is None else f"; median {column.values.median:g} {column.unit}"


def _median(name: str, columns: Mapping[str, Column]) -> Iterator[Finding]:
    medians = {site: column.values.median for site, column in columns.items()}
    known = {site: value for site, value in medians.items() if value is not None}
    widths = [width for column in columns.values() if (width := _width(column)) is not None and width > 0]
    if not widths:
        return
    found = apart_by(known, far=WIDTHS * sorted(widths)[len(widths) // 2])
    if found is None or not surely(found, {site: columns[site].values for site in columns}, unless_known=True):
        return
    figure = ", ".join(f"{site}: {value:g}" for site, value in known.items())
    unit = columns[found.sites[0]].unit
    ratio = found.value / found.usual if found.named and found.usual else 1.0
    factor = unit_of(ratio, within=0.25) if ratio > 0 else None
    text = f"{name} is of another size at {found.sites[0]}" if found.named else f"{name} differs between the sites"
    yield Finding(
        kind="column-unit",
        severity="warning",
        sites=found.sites,
        text=text + (f": {times(factor)} the others'" if factor else ""),
        figure=f"medians {figure} {unit}".rstrip(),
        advice="convert it to the unit of the others",
    )


def _width(column: Column) -> float | None:
    low, high = column.values.quantiles[1], column.values.quantiles[3]
    return None if low is None or high is None else high - low
