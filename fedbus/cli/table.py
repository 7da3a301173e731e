"""A table for people: no lines, whole cells."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from fedbus.runtime.terminal import said


def plain_table(*columns: str) -> Table:
    """A table with these columns; what is too wide is folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(said(column), overflow="fold")
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add what somebody said; a Text stands as it is."""
    table.add_row(*(cell if isinstance(cell, Text) else said(cell) for cell in cells))
