"""A report as one HTML file that can be read, printed and kept: no script, no network, everything that it shows inside.

    Page        title, one sentence, sections, and `data`: the same facts for machines
    Section     a heading and blocks: Text, Facts, Table, Findings, Figure (see `figures`), Pictures, Code

All text is escaped, made printable and bounded here, so that whoever builds a page passes on what it was given.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from fedbus import __version__
from fedbus.runtime.printable import printable

HERE = Path(__file__).parent
MOST_ROWS = 500
MOST_FINDINGS = 200
MOST_CHARS = 2000
"""Of one cell, sentence or label; the rest is counted."""
MOST_CODE_CHARS = 50_000
PNG = b"\x89PNG\r\n\x1a\n"

Cell = str | int | float | None


class Severity(StrEnum):
    """How much a finding matters; the value is the word that stands beside it."""

    PROBLEM = "problem"
    WARNING = "warning"
    NOTE = "note"
    GOOD = "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and values, one a line; those whose value is None or empty are left out."""

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows below their column names; numbers stand right. None is an empty cell, a float has three decimals."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that somebody should know: in a few words, and what it means or what to do."""

    severity: Severity
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Findings, the worst first."""

    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing made by `figures`; `says` is what it shows, for who cannot see it."""

    svg: Markup
    says: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG image of so many CSS pixels, which the file holds itself.

    edges: four letters to write at its left, right, top and bottom, or none.
    """

    png: bytes
    width_px: int
    height_px: int
    says: str
    caption: str = ""
    edges: str = ""

    def __post_init__(self) -> None:
        if not self.png.startswith(PNG):
            raise ValueError("a picture of a page is a PNG image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures side by side, as far as the page is wide."""

    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text as it stands, in lines, folded away below its title."""

    title: str
    text: str


Block = Text | Facts | Table | Findings | Figure | Pictures | Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report. data: JSON-able, what `as_json` writes. made_at: seconds since the epoch. notice: who may see it."""

    title: str
    lead: str
    sections: Sequence[Section]
    made_at: float
    data: Mapping[str, Any] = field(default_factory=dict)
    notice: str = ""


def as_html(page: Page) -> str:
    """The page as one HTML file."""
    return _template().render(page=page, when=when(page.made_at), release=__version__) + "\n"


def as_json(page: Page) -> str:
    """The facts of the page as JSON; what is not finite is null."""
    head = {"title": page.title, "made_at": page.made_at, "fedbus": __version__}
    return json.dumps(finite(head | dict(page.data)), indent=1, sort_keys=True, allow_nan=False) + "\n"


def finite(data: Any) -> Any:
    """JSON-able data with None for numbers that JSON cannot say."""
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def when(at: float | None) -> str:
    """A moment in local time, with its zone; empty for None."""
    return "" if at is None else f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S %z}"


def shown(cell: Cell) -> str:
    """A cell for people, on one line."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.3f}" if math.isfinite(cell) else "not finite"
    return printable(cell, most=MOST_CHARS)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float)


def _ranked(findings: Iterable[Finding]) -> list[Finding]:
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))[:MOST_FINDINGS]


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


def _code(text: str) -> str:
    cut = f"\n... ({len(text) - MOST_CODE_CHARS} more characters)" if len(text) > MOST_CODE_CHARS else ""
    return "\n".join(printable(line) for line in text[:MOST_CODE_CHARS].split("\n")) + cut


def environment(*folders: Path) -> Environment:
    """What templates of these folders are made with; those of blocks are beside them, and their filters there."""
    loader = FileSystemLoader([*folders, HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "shown": shown,
        "kind": _kind,
        "ranked": _ranked,
        "data_uri": _data_uri,
        "code": _code,
        "is_number": _is_number,
    }
    environment.globals |= {"most_rows": MOST_ROWS}
    return environment


@cache
def _template() -> Template:
    made = environment()
    made.globals["style"] = Markup((HERE / "page.css").read_text("utf-8"))  # noqa: S704 - our own file
    return made.get_template("page.html")
