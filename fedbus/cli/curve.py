"""The curve of a job for people and for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedbus.console.columns import columns_of, metrics_of
from fedbus.core.job.status_text import span
from fedbus.core.protocol.answers import VersionLine
from fedbus.runtime.terminal import said


def as_csv(lines: Sequence[VersionLine]) -> str:
    """A header and one line a version: plain numbers, nothing where there is none, sites with spaces between them.

    A column `auc` is the mean, `auc:mercy` what the site mercy measured.
    """
    columns = columns_of(lines)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def curve_table(lines: Sequence[VersionLine]) -> RenderableType:
    """One line a version; of each metric the mean, and what sites measured of just this version."""
    if not lines:
        return Text("no version yet: `fedbus show` says what the job waits for, or what it has measured")
    metrics = metrics_of(lines)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("version", "after", "contributors", *metrics):
        table.add_column(said(column), overflow="fold")
    for line in lines:
        cells = (_cell(line, name) for name in metrics)
        table.add_row(*map(said, (line.version, span(line.seconds or 0.0), ", ".join(line.contributors), *cells)))
    return table


def _cell(line: VersionLine, name: str) -> str:
    found = [f"{site} {scores[name]:.3f}" for site, scores in sorted(line.scores.items()) if name in scores]
    mean = f"{line.means[name]:.3f} " if name in line.means else ""
    return mean + (f"({', '.join(found)})" if found else "")
