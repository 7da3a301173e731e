"""Statistics of a site's table for a data check; what the columns hold is declared in `plausible`'s words.

Unlike the task, which refuses a table that it would learn wrong numbers from, this reads on and counts what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedbus.core.protocol.statistics import Column, Labels, Plan, Statistics
from fedbus.errors import DataError
from fedbus.tasks.plausible import Codes, Numbers, Values
from fedbus.tasks.statistics.arrays import counts_of, distribution_of, labels_of, prints_of
from fedbus.tasks.table import MISSING_WORDS, Table, header_of, read_table


def table_statistics(
    path: Path,
    columns: Sequence[Numbers | Codes],
    *,
    label: str,
    plan: Plan,
    unused: Sequence[Numbers | Codes] = (),
) -> Statistics:
    """Statistics of the table at `path`, of which `columns` are looked at; `label` is the one that holds classes.

    unused: columns that the task makes no use of, looked at where they are there.
    A table that is not there, or cannot be read at all, is a problem among the statistics and no error.
    """
    names = [column.name for column in (*columns, *unused)]
    try:
        header = header_of(path, names)
        there = [name for name in names if name in header]
        table = read_table(path, there)
    except (FileNotFoundError, DataError) as exc:
        kind = "no-table" if isinstance(exc, FileNotFoundError) else "malformed-rows"
        return Statistics(problems={kind: plan.minimum})  # one table, whose number says nothing of a patient
    columns = (*columns, *(column for column in unused if column.name in there))
    found = {column.name: _numbers(table, column.name) for column in columns if column.name in there}
    unread = sum(int(np.isinf(values).sum()) for values in found.values())
    rows = np.array([np.nan_to_num(found[name], nan=-1e9, posinf=-2e9) for name in there]).T
    return Statistics(
        examples=len(table.rows),
        columns=tuple(_column(column, found.get(column.name), plan) for column in columns),
        labels=_labels(next(c for c in columns if c.name == label), found.get(label)),
        problems={"not-numbers": unread} if unread else {},
        copies=table.copies,
        prints=prints_of(rows, salt=plan.salt),
    )


def _numbers(table: Table, name: str) -> Values:
    """Values fp64 [n]: NaN where a cell is empty, infinity where it is no number."""
    return np.array([_number(row.cells[name], table.separator) for row in table.rows], dtype=np.float64)


def _number(text: str, separator: str) -> float:
    if text.lower() in MISSING_WORDS:
        return np.nan
    try:
        value = float(text if separator == "," else text.replace(",", "."))
    except ValueError:
        return np.inf
    return value if np.isfinite(value) else np.inf


def _column(column: Numbers | Codes, values: Values | None, plan: Plan) -> Column:
    low, high = (column.low, column.high) if isinstance(column, Numbers) else (None, None)
    unit = column.unit if isinstance(column, Numbers) else ""
    if values is None:
        return Column(name=column.name, unit=unit, low=low, high=high, absent=True)
    coded = values[np.isin(values, column.missing)]
    read = values[~np.isnan(values) & ~np.isin(values, column.missing)]
    if isinstance(column, Numbers):
        possible = read[(read >= column.low) & (read <= column.high)]
        histogram = np.histogram(possible, bins=plan.bins, range=(column.low, column.high))[0]
    else:
        possible, histogram = read[np.isin(read, list(column.codes))], np.array([], dtype=np.int64)
    return Column(
        name=column.name,
        unit=unit,
        low=low,
        high=high,
        missing=len(values) - len(read),
        coded=counts_of(coded),
        impossible=len(read) - len(possible),
        # of all that was measured: in another unit nothing is possible, and the median says which unit
        values=distribution_of(read) if isinstance(column, Numbers) else distribution_of([]),
        levels=counts_of(read[np.isfinite(read)]) if isinstance(column, Codes) else {},
        histogram=tuple(int(count) for count in histogram),
    )


def _labels(column: Numbers | Codes, values: Values | None) -> Labels | None:
    if values is None or not isinstance(column, Codes):
        return None
    known = values[np.isfinite(values) & ~np.isin(values, column.missing)]
    return labels_of(known, expected=sorted(column.codes))
