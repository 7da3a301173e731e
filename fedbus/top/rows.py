"""The rows of the two tables: which there are, in which order, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from rich.text import Text

from fedbus.console import look
from fedbus.console.watched import doing_words
from fedbus.core.job.skew import MUCH_S
from fedbus.core.job.status_text import clock_words, span
from fedbus.core.protocol.answers import JobLine, SiteLine
from fedbus.runtime.printable import printable

R = TypeVar("R")
ONLINE = "online"
UP, DOWN = "↑", "↓"
STATES = ("running", "finishing", "waiting", "submitted", "failed", "aborted", "finished")
"""Jobs that one looks at first, first."""


class Kind(StrEnum):
    """Which of the two tables."""

    JOBS = "jobs"
    SITES = "sites"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[R]):
    """A column: its cell, and what rows are put in order by. right: its cells are numbers."""

    name: str
    cell: Callable[[R], Text]
    key: Callable[[R], Any]
    right: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a table. key: the id of a job or the name of a site. says: the sentence that belongs to it."""

    key: str
    cells: tuple[Text, ...]
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By which column a table is sorted, and whether from the end."""

    column: int = 0
    reverse: bool = False

    def next(self, columns: int) -> Order:
        """By the next column, from its beginning."""
        return Order(column=(self.column + 1) % columns)

    def turned(self) -> Order:
        return Order(column=self.column, reverse=not self.reverse)


def _text(value: object, *, right: bool = False) -> Text:
    shown = "" if value is None else printable(value)
    return Text(shown, justify="right" if right else "left", no_wrap=True)


def _state_rank(job: JobLine) -> int:
    word = job.state.partition(" ")[0]
    return STATES.index(word) if word in STATES else len(STATES)


JOBS: Sequence[Column[JobLine]] = (
    Column(name="job", cell=lambda job: _text(job.job), key=lambda job: -(job.submitted_at or 0.0)),
    Column(name="state", cell=lambda job: look.state(job.state.partition(" ")[0]), key=_state_rank),
    Column(name="task", cell=lambda job: _text(job.task), key=lambda job: job.task or ""),
    Column(
        name="version",
        cell=lambda job: _text(job.version, right=True),
        key=lambda job: -(job.version or 0),
        right=True,
    ),
    Column(
        name="updates",
        cell=lambda job: _text(job.updates, right=True),
        key=lambda job: -(job.updates or 0),
        right=True,
    ),
)
"""By the first column the newest job is first."""


def _does(site: SiteLine) -> str:
    doing = "; ".join(f"{job}: {doing_words(one)}" for job, one in site.jobs.items())
    return doing or site.reason or ("idle" if site.state == ONLINE else "")


def _age(name: str, of: Callable[[SiteLine], float]) -> Column[SiteLine]:
    return Column(name=name, cell=lambda site: _text(span(of(site)), right=True), key=of, right=True)


SITES: Sequence[Column[SiteLine]] = (
    Column(name="site", cell=lambda site: _text(site.site), key=lambda site: site.site),
    Column(name="state", cell=lambda site: look.state(site.state), key=lambda site: (site.state != "lost", site.state)),
    _age("since", lambda site: site.since_s),
    _age("heard", lambda site: site.heard_s),
    Column(name="does", cell=lambda site: _text(_does(site)), key=_does),
)


def says_of_site(site: SiteLine) -> str:
    """What is worth to be said of a site beside its row."""
    used = sorted({one.device for one in site.jobs.values() if one.device}) or [site.device]
    said = [f"{site.site}: {_does(site) or site.state}", f"on {', '.join(used)}" if used[0] else ""]
    ahead_s = site.clock_ahead_s or 0.0
    said.append(f"its clock is {clock_words(ahead_s)} the aggregator's" if abs(ahead_s) > MUCH_S else "")
    said.append(f"fedbus {site.fedbus_version}" if site.fedbus_version else "")
    return "; ".join(filter(None, said))


def job_rows(jobs: Sequence[JobLine], *, word: str, order: Order) -> list[Row]:
    """The jobs that have `word` anywhere in them, in order."""
    rows = [(job, Row(key=job.job, cells=tuple(column.cell(job) for column in JOBS), says=job.says)) for job in jobs]
    return _sorted(rows, JOBS, word, order)


def site_rows(sites: Sequence[SiteLine], *, word: str, order: Order) -> list[Row]:
    """The sites that have `word` anywhere in them, in order."""
    rows = [
        (site, Row(key=site.site, cells=tuple(column.cell(site) for column in SITES), says=says_of_site(site)))
        for site in sites
    ]
    return _sorted(rows, SITES, word, order)


def _sorted(rows: list[tuple[R, Row]], columns: Sequence[Column[R]], word: str, order: Order) -> list[Row]:
    found = [(of, row) for of, row in rows if _has(row, word)]
    key = columns[order.column].key
    return [row for _, row in sorted(found, key=lambda pair: key(pair[0]), reverse=order.reverse)]


def _has(row: Row, word: str) -> bool:
    wanted = word.casefold()
    return any(wanted in text.casefold() for text in (row.key, row.says, *(cell.plain for cell in row.cells)))


def heads(columns: Sequence[Column[Any]], order: Order) -> list[Text]:
    """The names of the columns; the one that the rows are in order of has an arrow."""
    arrow = DOWN if order.reverse else UP
    names = (f"{column.name} {arrow}" if i == order.column else column.name for i, column in enumerate(columns))
    return [_text(name, right=column.right) for name, column in zip(names, columns, strict=True)]
