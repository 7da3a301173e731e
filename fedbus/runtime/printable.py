"""Text from elsewhere, made fit for a terminal: what a site, a broker or a file says must not move a cursor.

Used at the edge, where text is printed for people: tables, events, errors, log lines on a terminal. JSON needs none of
it, for its own escapes cover the same characters.
"""

from __future__ import annotations

import unicodedata

MOST_CHARS = 4000


def printable(text: object, *, most: int = MOST_CHARS) -> str:
    r"""The text on one line: what is no visible character becomes an escape such as \n, \x1b or \u202e.

    Escaped are control characters, line ends, what changes the direction of writing or has no width, lone surrogates
    and characters that Unicode does not know. Of a text longer than `most` characters the rest is only counted.
    """
    whole = str(text)
    shown = whole if len(whole) <= most else f"{whole[:most]}... ({len(whole) - most} more characters)"
    return shown if shown.isprintable() else "".join(map(_visible, shown))


def printable_lines(text: object) -> str:
    """The same for a text of ours that has several lines, each of its own; those after the first are indented."""
    return "\n  ".join(printable(line) for line in str(text).split("\n"))


def _visible(char: str) -> str:
    # isprintable() also refuses spaces other than U+0020, which do no harm
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode("ascii")
