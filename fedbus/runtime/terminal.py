"""The one console for people: what it is given to show is text, never a command to the terminal.

Words in brackets are no markup, `:name:` is no picture, and every character that is none to look at becomes an escape,
whatever renderable it came in. Line ends inside a cell stay inside it; `printable` makes one line of a text first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fedbus.runtime.printable import printable


class Terminal(Console):
    """Standard output, or standard error with `stderr=True`; plain when it is no terminal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **settings})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it; segments with control codes are rich's own."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                text = "\n".join(printable(line, most=len(line)) for line in segment.text.split("\n"))
                yield segment._replace(text=text)


def said(value: object) -> Text:
    """What somebody said, as one cell or line; nothing for None."""
    return Text("" if value is None else printable(value))
