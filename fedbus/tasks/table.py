"""A table that a person exported: bytes to rows of cells and numbers, or what is wrong, in which line, and what to do.

What is read: text in UTF-8, UTF-16 with its mark, or Latin-1; cells apart by commas, semicolons, tabs or bars, which
the header decides, for it is known which columns it must have; any line ends; names in any case; columns in any order
and more of them than needed. A decimal comma is read where no comma separates cells. Everything else is refused: a row
that is longer or shorter than the header has its values in wrong columns, a quote that is not closed swallows patients.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbus.errors import DataError

SEPARATORS: Mapping[str, str] = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MISSING_WORDS = frozenset({"", "?", ".", "-", "--", "na", "nan", "n/a", "#n/a", "null", "none", "missing"})
MOST_BYTES = 1 << 28
MOST_TOLD = 5

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "an Excel workbook or another zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"%PDF", "a PDF"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite file"),
)
_WRITE_NUMBERS = (
    "write numbers with the digits 0 to 9 and a decimal point, categories by their codes, and leave a cell empty where "
    "nothing was measured"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: the line of the file that it begins in, counted from 1, and its stripped cells by column."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of a file. `notes` says in words what a person should know of how they were read.

    `copies` is the number of rows whose cells are those of an earlier row: a patient who is in it twice, maybe.
    """

    path: Path
    separator: str
    rows: tuple[Row, ...]
    copies: int
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[int]:
        return [row.line for row in self.rows]

    def numbers(self, columns: Sequence[str]) -> dict[str, list[float | None]]:
        """Return the numbers of each column, None where a cell is empty or one of MISSING_WORDS.

        Raises DataError that names line, column and cell of the first MOST_TOLD that are no numbers.
        """
        used = [(row, column) for row in self.rows for column in columns]
        self._check_decimal_sign(row.cells[column] for row, column in used)
        found: dict[str, list[float | None]] = {column: [] for column in columns}
        problems = []
        for row, column in used:
            try:
                found[column].append(self._number(row.cells[column]))
            except ValueError as exc:
                problems.append(f"line {row.line}: expected {exc} in column {column}, got {row.cells[column][:40]!r}")
        refuse(self.path, problems, advice=_WRITE_NUMBERS)
        return found

    def _number(self, text: str) -> float | None:
        if text.lower() in MISSING_WORDS:
            return None
        if not _NUMBER.fullmatch(text) or ("," in text and self.separator == ","):
            if text.lower().lstrip("+-") in ("inf", "infinity"):
                raise ValueError("a finite number")
            raise ValueError("a number or nothing")
        value = float(text.replace(",", "."))
        if not math.isfinite(value):
            raise ValueError("a finite number")
        return value

    def _check_decimal_sign(self, cells: Iterable[str]) -> None:
        signs = {sign for cell in cells if _NUMBER.fullmatch(cell) for sign in ".," if sign in cell}
        if len(signs) == 2 and self.separator != ",":
            raise DataError(
                f"{self.path} has numbers with a decimal point and others with a decimal comma: which sign separates "
                "the decimals cannot be told; write all numbers with a point"
            )


def refuse(path: Path, problems: Sequence[str], *, advice: str) -> None:
    """Raise DataError with the first MOST_TOLD of `problems`, if there are any, and what to do about them."""
    if problems:
        rest = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        raise DataError(f"{path} {'; '.join(problems[:MOST_TOLD])}{rest}: {advice}")


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Read a file with at least `columns`, whose names are in lower case.

    Raises FileNotFoundError, and DataError for everything that is not a table with these columns.
    """
    text, notes = _decode(path)
    separator, start = _separator(path, text, columns)
    records = ((line, cells) for line, cells in _records(path, text, separator) if line >= start and any(cells))
    _, header = next(records, (start, []))
    names = [cell.lower() for cell in header]
    while names and not names[-1]:
        names.pop()
    _check_names(path, names, columns)
    rows = tuple(_row(path, line, cells, names, separator) for line, cells in records)
    if not rows:
        raise DataError(f"{path} has a header and no patients")
    if separator != ",":
        notes.append(f"cells are separated by {SEPARATORS[separator]}")
    if ignored := [name for name in names if name and name not in columns]:
        notes.append(f"columns that are not used: {', '.join(ignored)}")
    # without the column that has no name, in which some programs number the rows
    different = {tuple(cell for name, cell in row.cells.items() if name) for row in rows}
    return Table(path=path, separator=separator, rows=rows, copies=len(rows) - len(different), notes=tuple(notes))


def header_of(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns that a file has, in lower case; which of `columns` decide what separates them.

    Raises FileNotFoundError, and DataError for what is no text.
    """
    text, _ = _decode(path)
    separator, start = _separator(path, text, columns)
    cells = next((cells for line, cells in _records(path, text, separator) if line >= start and any(cells)), [])
    return tuple(cell.lower() for cell in cells)


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataError(f"{path}: expected a table of at most {MOST_BYTES:,} bytes, got {size:,}")
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path} cannot be read: expected a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc}") from exc


def _decode(path: Path) -> tuple[str, list[str]]:
    """Return the text, and notes on how it was read."""
    raw = _read(path)
    for start, what in _OTHER_FORMATS:
        if raw.startswith(start):
            raise DataError(f"{path} is {what}, expected text: export the table as CSV (UTF-8)")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    notes = []
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as exc:
        if encoding != "utf-8":
            raise DataError(f"{path} is no {encoding.upper()} text: {exc.reason}; export it as CSV (UTF-8)") from exc
        # single bytes beyond ASCII can only stand in cells that are not used: in numbers they are refused
        text = raw.decode("latin-1")
        notes.append("the file is not UTF-8; it is read as Latin-1")
    text = text.rstrip("\x1a")
    _check_control(path, text)
    return text, notes


def _check_control(path: Path, text: str) -> None:
    if control := _CONTROL.search(text):
        line = len(re.findall(r"\r\n?|\n", text[: control.start()])) + 1
        raise DataError(
            f"{path} line {line}: expected text, got the control character {control[0]!r}: the file is damaged, or "
            "UTF-16 without its mark; export the table again as CSV (UTF-8)"
        )


def _separator(path: Path, text: str, columns: Sequence[str]) -> tuple[str, int]:
    """Return the separator by which the header has the most of `columns`, and the header's line."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        if re.fullmatch(r"sep=.?", line.strip(), re.IGNORECASE):  # Excel writes it, for itself
            continue
        return max(SEPARATORS, key=lambda sign: _known(line, sign, columns)), number
    raise DataError(
        f"{path} is empty: expected a header with the columns {', '.join(columns)}, then a line per patient"
    )


def _known(line: str, separator: str, columns: Sequence[str]) -> int:
    names = {name.strip().strip('"').strip().lower() for name in line.split(separator)}
    return len(names.intersection(columns))


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line that the record begins in, stripped cells)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            yield line, [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(f"{path} line {line}: {exc}: is a quote not closed, or a cell too long?") from exc


def _check_names(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    lacking = [column for column in columns if column not in names]
    if lacking and sum(bool(_NUMBER.fullmatch(name)) for name in names) * 2 > len(names):
        raise DataError(f"{path}: expected a header with the columns {', '.join(columns)}, the first line has numbers")
    if lacking:
        found = ", ".join(repr(name[:40]) for name in names[:30])
        raise DataError(
            f"{path}: expected the columns {', '.join(columns)}, separated by comma, semicolon, tab or bar; "
            f"{', '.join(lacking)} not found; the first line has {found}"
        )
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise DataError(f"{path}: expected each column once, the header has {', '.join(twice)} more than once")


def _row(path: Path, line: int, cells: Sequence[str], names: Sequence[str], separator: str) -> Row:
    if [cell.lower() for cell in cells[: len(names)]] == names:
        raise DataError(f"{path} line {line} is the header again: were two files put together? remove what is twice")
    if len(cells) < len(names) or any(cells[len(names) :]):
        raise DataError(
            f"{path} line {line}: expected {len(names)} cells as in the header, got {len(cells)}: a cell is missing, "
            "one holds the separator (a decimal comma?), or this is a line of totals; correct it or remove it"
        )
    if any(cell and not name for cell, name in zip(cells[1:], names[1:], strict=False)):
        raise DataError(f"{path} line {line}: a cell is filled in a column without a name: are its cells shifted?")
    if any(len(cell.splitlines()) > 1 and cell.count(separator) >= len(names) - 1 for cell in cells):
        # a quote that opens in one row and closes in the same column of a later one: the count of cells is right
        raise DataError(f"{path} line {line}: a quoted cell reaches over rows of the table: is a quote not closed?")
    return Row(line=line, cells=dict(zip(names, cells, strict=False)))
