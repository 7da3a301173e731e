"""Files as people export them: read right, or refused with line, column, what was expected and what to do."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbus.errors import DataError
from fedbus.tasks.table import Table, read_table

TEXT = "ward,age,dose\nnorth,61,0.5\nsouth,47,1.25\n"
COLUMNS = ("age", "dose")


def table(folder: Path, content: str | bytes) -> Table:
    path = folder / "patients.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, COLUMNS)


def numbers(folder: Path, content: str | bytes) -> dict[str, list[float | None]]:
    return table(folder, content).numbers(COLUMNS)


RIGHT = {
    "as it should be": TEXT,
    "CRLF": TEXT.replace("\n", "\r\n"),
    "old Mac": TEXT.replace("\n", "\r"),
    "no line end": TEXT.rstrip(),
    "UTF-8 with its mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16, other end first": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1": TEXT.replace("north", "nörth").encode("latin-1"),
    "semicolons": TEXT.replace(",", ";"),
    "semicolons, decimal comma": TEXT.replace(",", ";").replace(".", ","),
    "tabs": TEXT.replace(",", "\t"),
    "tabs, decimal comma": TEXT.replace(",", "\t").replace(".", ","),
    "bars": TEXT.replace(",", "|"),
    "text with another separator": TEXT.replace("north", '"north; first, floor | left"'),
    "Excel's line with the separator": "sep=;\n" + TEXT.replace(",", ";"),
    "names in capitals": TEXT.replace("ward,age,dose", "WARD,Age,DOSE"),
    "spaces": TEXT.replace(",", " , "),
    "space before a quote": TEXT.replace("61", ' "61"'),
    "everything in quotes": "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in TEXT.splitlines()),
    "a quoted line break": TEXT.replace("north", '"nor\nth"'),
    "empty lines": "\n\n" + TEXT.replace("\n", "\n\n"),
    "empty rows of a spreadsheet": TEXT + ",,\n,,\n",
    "empty columns of a spreadsheet": TEXT.replace("\n", ",,\n"),
    "empty columns in the header alone": TEXT.replace("dose", "dose,,"),
    "columns in another order": "dose,ward,age\n0.5,north,61\n1.25,south,47\n",
    "more columns": "id,age,x,dose,y\n7,61,?,0.5,\n8,47,1,1.25,z\n",
    "numbered rows": ",age,dose\n0,61,0.5\n1,47,1.25\n",
    "DOS end of file": TEXT + "\x1a",
    "exponents and signs": TEXT.replace("61", "+6.1e1").replace("1.25", "125E-2").replace("0.5", ".5"),
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT)
def test_a_table_is_read_however_it_was_exported(content: str | bytes, tmp_path: Path) -> None:
    assert numbers(tmp_path, content) == {"age": [61.0, 47.0], "dose": [0.5, 1.25]}


@pytest.mark.parametrize("word", ["", "?", "NA", " na ", "NaN", "N/A", "#N/A", "NULL", "None", ".", "-", "missing"])
def test_words_for_missing_are_nothing(word: str, tmp_path: Path) -> None:
    assert numbers(tmp_path, TEXT.replace("61", word))["age"] == [None, 47.0]


WRONG = {
    "empty": ("", "is empty: expected a header with the columns age, dose"),
    "blank": ("\n \n", "is empty"),
    "header alone": ("ward,age,dose\n", "has a header and no patients"),
    "another column": (TEXT.replace("dose", "amount"), "dose not found; the first line has 'ward', 'age', 'amount'"),
    "a title first": ("Patients 2024\n" + TEXT, "age, dose not found; the first line has 'patients 2024'"),
    "no header": ("61,0.5\n47,1.25\n", "expected a header with the columns age, dose, the first line has numbers"),
    "a column twice": (TEXT.replace("ward", "AGE"), "expected each column once, the header has age more than once"),
    "header again": (TEXT + TEXT, "line 4 is the header again"),
    "a cell too many": (TEXT.replace("0.5", "0,5"), "line 2: expected 3 cells as in the header, got 4"),
    "shifted under empty names": (TEXT.replace("dose", "dose,").replace("0.5", "0,5"), "line 2: expected 3 cells"),
    "filled without a name": (
        "ward,,age,dose\nnorth,1,61,0.5\n",
        "line 2: a cell is filled in a column without a name",
    ),
    "a cell too few": (TEXT.replace("47,", ""), "line 3: expected 3 cells as in the header, got 2"),
    "totals": (TEXT + "Total,108\n", "line 4: expected 3 cells.*totals"),
    "below the limit": (TEXT.replace("0.5", "<1"), "line 2: expected a number or nothing in column dose, got '<1'"),
    "fullwidth digits": (
        TEXT.replace("61", "\N{FULLWIDTH DIGIT SIX}\N{FULLWIDTH DIGIT ONE}"),
        "line 2: .* in column age, .*write numbers with the digits 0 to 9",
    ),
    "a number with underscores": (TEXT.replace("61", "6_1"), "line 2: expected a number or nothing in column age"),
    "Unicode minus": (TEXT.replace("61", "\N{MINUS SIGN}9"), "line 2: expected a number or nothing in column age"),
    "quoted decimal comma": (TEXT.replace("0.5", '"0,5"'), "line 2: expected a number or nothing in column dose"),
    "thousands": (
        TEXT.replace(",", ";").replace("0.5", "1.000,5"),
        "line 2: expected a number or nothing in column dose",
    ),
    "both decimal signs": (TEXT.replace(",", ";").replace("0.5", "0,5"), "which sign separates the decimals"),
    "infinite": (TEXT.replace("61", "inf"), "line 2: expected a finite number in column age, got 'inf'"),
    "too large": (TEXT.replace("61", "1e999"), "line 2: expected a finite number in column age"),
    "NUL": (TEXT.replace("south", "so\0th"), r"line 3: expected text, got the control character '\\x00'"),
    "UTF-16 without its mark": (TEXT.encode("utf-16-le"), "line 1: .*UTF-16 without its mark"),
    "half a UTF-16 file": (TEXT.encode("utf-16")[:-1], "is no UTF-16 text"),
    "Excel": (b"PK\x03\x04" + bytes(99), r"is an Excel workbook .*export the table as CSV \(UTF-8\)"),
    "gzip": (gzip.compress(TEXT.encode()), "is compressed by gzip"),
    "Parquet": (b"PAR1" + bytes(99), "is a Parquet file"),
    "quote not closed": (TEXT.replace("north", '"north'), "line 2: .*is a quote not closed"),
    "quote closed a row later": (
        'age,dose,ward\n61,0.5,"north\n47,1.25,"\n',
        "line 2: a quoted cell reaches over rows",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_refused_with_line_and_advice(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        numbers(tmp_path, content)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "patients.csv")

    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "patients.csv", COLUMNS)


def test_many_wrong_cells_are_counted_after_the_first_five(tmp_path: Path) -> None:
    rows = "".join(f"w,high,{dose}\n" for dose in range(8))

    with pytest.raises(DataError, match=r"line 6: [^;]*; and 3 more: write numbers"):
        numbers(tmp_path, "ward,age,dose\n" + rows)


def test_it_is_said_how_the_file_was_read(tmp_path: Path) -> None:
    found = table(tmp_path, TEXT.replace(",", ";").replace("north", "nörth").encode("latin-1"))

    assert found.notes == (
        "the file is not UTF-8; it is read as Latin-1",
        "cells are separated by semicolons",
        "columns that are not used: ward",
    )


def test_rows_that_stand_twice_are_counted_also_when_they_are_numbered(tmp_path: Path) -> None:
    assert table(tmp_path, TEXT).copies == 0
    assert table(tmp_path, TEXT + "north,61,0.5\n").copies == 1
    assert table(tmp_path, ",age,dose\n0,61,0.5\n1,61,0.5\n2,61,0.5\n").copies == 2
