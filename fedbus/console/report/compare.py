"""What a comparison has come to: the answer in words, and each metric's differences with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedbus.console.compare import FIRST, NOT_SHOWN, SECOND, Comparison, Difference, comparisons_of, sentences, verdict
from fedbus.core.protocol.answers import Interval, JobDetail, VersionLine
from fedbus.report import figures
from fedbus.report import page as p

MOST_FIGURES = 12
OVER_ALL = 1
"""The series of what is over all sites."""


def compare_sections(detail: JobDetail, _: Sequence[VersionLine]) -> Iterator[p.Section]:
    """One for each model that the first is compared to; none for a job that compares nothing."""
    for comparison in comparisons_of(detail):
        answer, *others = sentences(comparison)
        which = p.Table(columns=["", "model"], rows=[(FIRST, comparison.first), (SECOND, comparison.second)])
        yield p.Section(
            title=f"Is {SECOND} better than {FIRST}?",
            blocks=[p.Text(text=answer), which, *(p.Text(text=text) for text in others), *_figures(comparison)],
        )


def _figures(comparison: Comparison) -> Iterator[p.Block]:
    for one in comparison.differences[:MOST_FIGURES]:
        rows = [_row(site, one.metric, found, series=0) for site, found in sorted(one.sites.items())]
        if one.overall is not None:
            rows.append(_row(f"over {one.overall.sites} sites", one.metric, one.overall, series=OVER_ALL))
        caption = f"{one.metric}: {SECOND} less {FIRST} with 95 % intervals; none shown: {NOT_SHOWN}"
        yield figures.intervals(rows, says=_says(one), caption=caption, reference=0.0)
    left = len(comparison.differences) - MOST_FIGURES
    if left > 0:
        yield p.Text(text=f"{left} more metrics are in the JSON form of this report.")


def _row(label: str, metric: str, found: Interval, *, series: int) -> figures.Interval:
    note = "none shown" if (says := verdict(metric, found)) == NOT_SHOWN else says
    return figures.Interval(label=label, value=found.value, low=found.low, high=found.high, note=note, series=series)


def _says(one: Difference) -> str:
    sites = "; ".join(f"{site} {found.value:+.3f}, {verdict(one.metric, found)}" for site, found in one.sites.items())
    return f"{one.metric}, {SECOND} less {FIRST}: {sites}"
