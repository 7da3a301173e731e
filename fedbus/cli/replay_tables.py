"""What `fedbus replay` shows to people; what it shows is what `-o json` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fedbus.core.words import counted
from fedbus.runtime.terminal import said


def verdict_table(row: dict[str, Any]) -> RenderableType:
    """One job."""
    return _grid(
        ("job", row["job"]),
        ("from version", row["from_version"]),
        ("to version", row["to_version"]),
        ("folded", _cost(row)),
        ("says", row["says"]),
    )


def verdicts_table(rows: list[dict[str, Any]]) -> RenderableType:
    """One line per job, and below it what came of it."""
    parts: list[RenderableType] = []
    width = max(len(row["job"]) for row in rows)
    for row in rows:
        numbers = "" if row["failed"] else f"versions {row['from_version']} to {row['to_version']}, {_cost(row)}"
        parts.append(said(f"{row['job']:<{width}}  {numbers}".rstrip()))
        parts.append(Padding(said(row["says"]), (0, 0, 0, 4), expand=False))
    return Group(*parts)


def _cost(row: dict[str, Any]) -> str:
    return f"{counted(row['updates'], 'update')} in {row['seconds']:.1f} s"


def left_out_tables(row: dict[str, Any]) -> list[RenderableType]:
    """A job without some sites: who points where, and how far the params end from where they did."""
    names = ", ".join(row["without"])
    skipped = f"; {counted(row['skipped'], 'version')} had nothing else" if row["skipped"] else ""
    since = f" before version {row['from_version']}"
    facts = _grid(
        ("job", row["job"]),
        ("without", names),
        ("from version", row["from_version"]),
        ("to version", row["to_version"]),
        ("left out", f"{row['left_out']} of {row['updates']} updates{skipped}"),
        ("seconds", f"{row['seconds']:.1f}"),
        ("says", row["says"]),
    )
    note = f"First order: what the others sent later began from versions with {names} in them."
    if row["gone"]:
        note += f" What {names} sent{since} stays in: those bodies are gone (`fedbus aggregator --keep-updates`)."
    return [facts, Text(), _sites(row), Text(), _groups(row), Text(), said(note)]


def _sites(row: dict[str, Any]) -> Table:
    table = _table("site", "updates", "contribution", "cosine to the others", "")
    for share in row["sites"]:
        left_out = "left out" if share["left_out"] else ""
        table.add_row(
            said(share["site"]), str(share["updates"]), f"{share['norm']:.4g}", _cosine(share["cosine"]), left_out
        )
    return table


def _groups(row: dict[str, Any]) -> Table:
    table = _table("params", "elements", "moved", "difference", "of moved", "cosine")
    for group in row["groups"]:
        part = f"{group['difference'] / group['moved']:.0%}" if group["moved"] else ""
        table.add_row(
            said(group["group"]),
            f"{group['elements']:,}",
            f"{group['moved']:.4g}",
            f"{group['difference']:.4g}",
            part,
            _cosine(group["cosine"]),
        )
    return table


def _cosine(cosine: float | None) -> str:
    return "" if cosine is None else f"{cosine:+.3f}"


def _grid(*rows: tuple[str, object]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(said(name), said(value))
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table
