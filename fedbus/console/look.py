"""How a federation looks in a terminal: colours of states, a bar, a curve, a table of sites; for demo, watch and top.

What lives here: renderables out of words and numbers. What may not: asking, counting, and what to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedbus.runtime.printable import printable

REDRAWS_PER_S = 4
MAX_WIDTH = 120
ALL_COLUMNS, FEW_COLUMNS = 64, 44
"""From so many columns on a table of sites has all of its own, or the most needed numbers; narrower it has none."""
LONGEST_NAME = 20
STYLES = {
    "here": "green",
    "online": "green",
    "running": "green",
    "finished": "green",
    "up": "green",
    "left": "yellow",
    "declined": "yellow",
    "finishing": "cyan",
    "starting": "cyan",
    "aborted": "yellow",
    "lost": "red",
    "failed": "red",
}
"""By the word of a state, of a process, a site or a job; every other one is dim."""
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.,-~=*#"


def on_terminal(console: Console) -> bool:
    """Whether something can be redrawn in place. FORCE_COLOR makes no terminal of a file."""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


Screen = Live
"""What can be drawn, and stopped and started meanwhile."""


def live(picture: Callable[[], RenderableType], console: Console, *, by_itself: bool = True) -> Screen:
    """The whole screen, drawn anew until the context is left; then what was there before is there again.

    by_itself: a thread draws it; else `refresh()` does. A screen of its own is what a change of the window's size
    leaves whole: lines that were drawn in place are wrapped by the terminal, and nobody can tell how many they are.
    """
    return Live(
        get_renderable=picture,
        console=console,
        refresh_per_second=REDRAWS_PER_S,
        auto_refresh=by_itself,
        screen=True,
    )


def line(text: str, style: str = "") -> Text:
    """One line, cut where the width ends."""
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def state(word: str) -> Text:
    """A state in its colour; one of a later release is there without."""
    shown = printable(word)
    return Text(shown, style=STYLES.get(shown.partition(" ")[0], "dim"), no_wrap=True, overflow="ellipsis")


def bar(done: float, total: float, words: str, *, width: int, before: Text | None = None) -> RenderableType:
    """How far something is, with the words for it behind; `before` is its state, say."""
    first = Text() if before is None else before
    taken = len(words) + 2 + (first.cell_len + 2 if first else 0)
    drawn = ProgressBar(total=total, completed=min(done, total), width=max(8, width - taken))
    grid = Table.grid(padding=(0, 2))
    grid.add_row(*((first,) if first else ()), drawn, Text(words, no_wrap=True, overflow="ellipsis"))
    return grid


def time_of_day(at: float) -> str:
    """The local time of an event; of one that cannot be: dashes."""
    try:
        return f"{datetime.fromtimestamp(at):%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """A name, a curve as blocks, and words behind it, on one line."""

    name: str
    values: Sequence[float]
    words: str
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        room = max(1, self.width - len(self.name) - len(self.words) - 4)
        drawn = blocks(self.values, room, PLAIN_BLOCKS if options.ascii_only else BLOCKS)
        shown = Text(no_wrap=True, overflow="ellipsis")
        yield shown.append(f"{printable(self.name)}  ", "bold").append(drawn, "cyan").append(f"  {self.words}")


def blocks(values: Sequence[float], width: int, marks: str = BLOCKS) -> str:
    """Numbers in order from the lowest to the highest mark; of more than so many the last of each part.

    What is not finite is left out.
    """
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    shown = [finite[(i + 1) * len(finite) // count - 1] for i in range(count)]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((value - low) * scale)] if scale else marks[len(marks) // 2] for value in shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One site of a job. None: not known."""

    name: str
    state: str
    does: str = ""
    updates: int = 0
    refused: int = 0
    staleness: float | None = None
    metric: float | None = None


def sites_table(rows: Sequence[SiteRow], *, width: int, what: str = "site", metric: str = "") -> Table:
    """One line a site in so many columns. What is left of them is for what a site does."""
    name = max((min(len(row.name), LONGEST_NAME) for row in rows), default=0)
    refused = width >= ALL_COLUMNS and any(row.refused for row in rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", width=width)
    table.add_column(what, width=min(max(name, len(what)), max(8, width // 3)), no_wrap=True, overflow="ellipsis")
    table.add_column("state", width=8, no_wrap=True, overflow="ellipsis")
    table.add_column("does", ratio=1, no_wrap=True, overflow="ellipsis")
    numbers = [("updates", width >= FEW_COLUMNS), ("refused", refused), ("staleness", width >= ALL_COLUMNS)]
    numbers.append((metric, bool(metric) and width >= FEW_COLUMNS))
    for column, wanted in numbers:
        if wanted:
            table.add_column(Text(printable(column)), justify="right", no_wrap=True, overflow="ellipsis", max_width=12)
    for row in rows:
        cells = (str(row.updates or ""), str(row.refused or ""), _number(row.staleness, 1), _number(row.metric, 3))
        shown = (cell for cell, (_, wanted) in zip(cells, numbers, strict=True) if wanted)
        table.add_row(line(row.name), state(row.state), line(row.does), *shown)
    return table


def worst_first(rows: Iterable[SiteRow]) -> list[SiteRow]:
    """The rows with those that something is amiss with first, else in the order that they had."""
    order = ("lost", "declined", "left")
    return sorted(rows, key=lambda row: order.index(row.state) if row.state in order else len(order))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
