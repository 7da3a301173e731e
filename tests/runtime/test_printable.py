"""What a terminal is given: text that moves no cursor, whoever said it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from fedbus.runtime.printable import printable, printable_lines
from fedbus.runtime.terminal import Terminal, said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("St. Mercy, Zürich: 95 % 数据 😀", "St. Mercy, Zürich: 95 % 数据 😀"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe\u2066\u200b\ufeff", r"\u202egnp.exe\u2066\u200b\ufeff"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("\udc80\U000e0001", r"\udc80\U000e0001"),
        ("no\u00a0break", "no\u00a0break"),
        (7, "7"),
    ],
)
def test_what_is_no_visible_character_becomes_an_escape(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_whatever_was_said_is_one_line_that_can_be_encoded(text):
    shown = printable(text)
    assert shown.splitlines() in ([shown], [])
    assert "\x1b" not in shown.encode().decode()
    assert printable(shown) == shown


def test_a_text_without_end_is_cut_and_the_rest_counted():
    assert printable("x" * 10_000, most=100) == "x" * 100 + "... (9900 more characters)"


def test_an_error_of_several_lines_keeps_them_and_none_looks_like_the_next_message():
    assert printable_lines("one\nfedbus: all is well\x1b[A") == "one\n  fedbus: all is well\\x1b[A"


@pytest.mark.parametrize("cell", ["\x1b[2J[bold]x[/] :smile:", Text("\x1b[2J[bold]x[/] :smile:")], ids=["str", "Text"])
def test_the_terminal_shows_text_as_text_also_when_nobody_made_it_printable(cell):
    out = io.StringIO()
    table = Table("what")
    table.add_row(cell)
    Terminal(file=out, width=80, force_terminal=True, color_system=None).print(table, cell)
    assert "[2J" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert out.getvalue().count("[bold]x[/] :sm") == 2


def test_a_cell_is_one_line_and_nothing_for_nothing():
    assert (said("a\nb").plain, said(None).plain) == (r"a\nb", "")
