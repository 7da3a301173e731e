"""The first screen: jobs above, sites below, and the sentence of the chosen line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from fedbus.console import look
from fedbus.core.words import counted
from fedbus.runtime.printable import printable
from fedbus.top.asked import Overview
from fedbus.top.opened import JobScreen, SiteScreen
from fedbus.top.rows import JOBS, SITES, Kind, Order, Row, heads, job_rows, site_rows

if TYPE_CHECKING:
    from fedbus.top.app import Top

DRAW_EVERY_S = 0.5
NOTHING = {
    Kind.JOBS: "no jobs yet: publish one with `fedbus submit JOB.yaml`",
    Kind.SITES: "no site has joined yet: start one with `fedbus site --name NAME --data DIR`",
}


class Rows(DataTable[Text]):
    """A table whose chosen line stays the chosen one when others come and go."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "open")]

    def __init__(self, kind: Kind) -> None:
        super().__init__(id=str(kind), cursor_type="row", zebra_stripes=False, cell_padding=1)
        self.kind = kind
        self.order = Order()
        self.rows_shown: list[Row] = []
        self._heads: list[str] = []

    def show(self, rows: Sequence[Row]) -> None:
        """Draw these rows."""
        columns = heads(JOBS if self.kind is Kind.JOBS else SITES, self.order)
        if list(rows) == self.rows_shown and [head.plain for head in columns] == self._heads:
            return
        chosen, scrolled = self.chosen, self.scroll_y
        self.rows_shown, self._heads = list(rows), [head.plain for head in columns]
        self.clear(columns=True)
        for head in columns:
            self.add_column(head)
        for row in rows:
            self.add_row(*row.cells, key=row.key)
        keys = [row.key for row in rows]
        if chosen is not None and chosen.key in keys:
            self.move_cursor(row=keys.index(chosen.key), scroll=False)
        self.scroll_to(y=scrolled, animate=False)

    @property
    def chosen(self) -> Row | None:
        """The row that the cursor is on; None in an empty table."""
        at = self.cursor_row
        return self.rows_shown[at] if 0 <= at < len(self.rows_shown) else None


class MainScreen(Screen[None]):
    """Both tables."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("S", "turn", "turn", show=False),
        Binding("a", "abort", "abort"),
        Binding("escape", "clear", "clear", show=False),
        Binding("tab", "other", "jobs/sites", show=True, priority=True),
    ]
    app: Top

    def __init__(self, overview: Overview) -> None:
        super().__init__()
        self._overview = overview
        self._word = ""
        self._head, self._trouble, self._says = Static(id="head"), Static(id="trouble"), Static(id="says")
        self._tables = {kind: Rows(kind) for kind in Kind}
        self._nothing = {kind: Static(id=f"no-{kind}", classes="nothing") for kind in Kind}
        self._input = Input(id="filter", placeholder="a word that the lines have in them", compact=True)
        self._last = self._tables[Kind.JOBS]

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._trouble
        for kind in Kind:
            with Vertical(id=f"part-{kind}"):
                yield self._tables[kind]
                yield self._nothing[kind]
        yield self._says
        yield self._input
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self._input.display = self._input.cursor_blink = False
        self._last.focus()
        self.draw()
        self.set_interval(DRAW_EVERY_S, self.draw)

    def draw(self) -> None:
        """Draw what is known now."""
        trouble, seen = self.app.trouble(), self._overview
        self._trouble.update(look.line(trouble, "red"))
        self._trouble.display = bool(trouble)
        self._head.update(self._counts())
        of_jobs = job_rows(seen.jobs, word=self._word, order=self._tables[Kind.JOBS].order)
        of_sites = site_rows(seen.sites, word=self._word, order=self._tables[Kind.SITES].order)
        self._show(Kind.JOBS, of_jobs, len(seen.jobs))
        self._show(Kind.SITES, of_sites, len(seen.sites))
        self._say()

    def _show(self, kind: Kind, rows: Sequence[Row], among: int) -> None:
        asked = self._overview.fresh.answered_at is not None
        text = (
            f"none of {counted(among, str(kind).removesuffix('s'))} has {self._word!r} in it"
            if among
            else NOTHING[kind]
        )
        self._nothing[kind].update(Text(text if asked else "", style="dim"))
        self._nothing[kind].display = not rows
        self._tables[kind].show(rows)

    def _counts(self) -> Text:
        seen = self._overview
        states = Counter(job.state.partition(" ")[0] for job in seen.jobs)
        here = sum(site.state == "online" for site in seen.sites)
        words = ", ".join(f"{states[word]} {word}" for word in ("running", "waiting", "finishing") if states[word])
        head = Text("fedbus top", style="bold")
        if self._word:
            head.append(f"  filter: {printable(self._word)}", "bold yellow")
        head.append(f"  {counted(len(seen.jobs), 'job')}{f' ({words})' if words else ''}", "not bold")
        head.append(f", {here} of {counted(len(seen.sites), 'site')} online", "not bold")
        return head.append(f"  {self.app.asked.broker if self.app.asked else ''}", "dim not bold")

    def _say(self) -> None:
        row = self._focused.chosen
        says = Text(printable(row.says), overflow="ellipsis") if row else Text()
        self._says.update(says)

    # ------------------------------------------------------------------ keys

    def on_data_table_row_selected(self) -> None:
        """Enter, or a click on the chosen line."""
        row = self._focused.chosen
        if row is None:
            return
        if self._focused.kind is Kind.JOBS:
            self.app.push_screen(JobScreen(row.key))
        else:
            self.app.push_screen(SiteScreen(row.key))

    def on_data_table_row_highlighted(self) -> None:
        self._say()

    def action_other(self) -> None:
        other = Kind.SITES if self._focused.kind is Kind.JOBS else Kind.JOBS
        self._tables[other].focus()
        self._say()

    def action_sort(self) -> None:
        table = self._focused
        table.order = table.order.next(len(JOBS if table.kind is Kind.JOBS else SITES))
        self.draw()

    def action_turn(self) -> None:
        self._focused.order = self._focused.order.turned()
        self.draw()

    def action_abort(self) -> None:
        row = self._focused.chosen
        if self._focused.kind is Kind.JOBS and row is not None:
            self.app.abort(row.key)
        else:
            self.app.notify("choose a job to abort: Tab goes to the jobs", severity="warning", markup=False)

    def action_filter(self) -> None:
        self._input.display = True
        self._input.focus()

    def action_clear(self) -> None:
        self._input.value = ""
        self._input.display = False
        self._focused.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._word = event.value
        self.draw()

    def on_input_submitted(self) -> None:
        self._input.display = False
        self._focused.focus()

    @property
    def _focused(self) -> Rows:
        """The table that has the keys, or had them before the filter."""
        if isinstance(self.focused, Rows):
            self._last = self.focused
        return self._last
