"""What opens from a line of a table: the panel of a job, as `fedbus watch` draws it, or all that is known of a site."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from fedbus.console import look
from fedbus.console.panel import job_panel
from fedbus.console.picture import Picture
from fedbus.console.watched import Watched, doing_words
from fedbus.core.job.skew import MUCH_S
from fedbus.core.job.status_text import clock_words, span
from fedbus.core.protocol.answers import JobDetail, SiteInJob, SiteLine
from fedbus.errors import FedbusError
from fedbus.runtime.terminal import said

if TYPE_CHECKING:
    from fedbus.top.app import Top

DRAW_EVERY_S = 0.5
MOST_JOBS = 20
"""Of a site are asked for."""


class _Opened(Screen[None]):
    """A screen that is drawn anew, and goes away with Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,backspace", "back", "back", key_display="Esc")]
    app: Top

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="opened")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self._following = self.app.begin(self._follow(), name="follow")
        self.set_interval(DRAW_EVERY_S, self.draw)
        self.call_after_refresh(self.draw)

    def on_unmount(self) -> None:
        self._following.cancel()

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        self.query_one("#opened", Static).update(self.picture())

    def action_back(self) -> None:
        self.app.pop_screen()

    def picture(self) -> RenderableType:
        """What is known now."""
        raise NotImplementedError

    async def _follow(self) -> None:
        raise NotImplementedError


class JobScreen(_Opened):
    """One job."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("a", "abort", "abort")]

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job
        self.watched = Watched(job=job, picture=Picture(job=job))

    def picture(self) -> RenderableType:
        seen = self.watched
        seen.fresh.connected = self.app.asked is not None and self.app.asked.connected
        width, height = self.size.width, max(1, self.size.height - 1)
        return job_panel(seen, width=width, height=height, now=self.app.now(), clock=self.app.clock())

    def action_abort(self) -> None:
        self.app.abort(self._job)

    async def _follow(self) -> None:
        """Ask, and read the events from the first one on that the aggregator's answer allows to find."""
        await self._look()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_on(), name="look")
            group.create_task(self._events(), name="events")

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(self.app.every_s)
            await self._look()

    async def _look(self) -> None:
        """One answer; before the first there is nothing to follow, so it is waited for."""
        while self.app.asked is not None:
            try:
                detail = await self.app.asked.job(self._job)
            except FedbusError as exc:
                self.watched.fresh.failed(exc)
            else:
                self.watched.look(detail, self.app.overview.sites, now=self.app.clock())
            if self.watched.detail is not None:
                return
            await asyncio.sleep(self.app.every_s)

    async def _events(self) -> None:
        """Follow the events; where they cannot be read any more, as of a broker that was made anew, begin again."""
        while self.app.asked is not None and (detail := self.watched.detail) is not None:
            try:
                async for event in self.app.asked.events(self._job, submitted_at=detail.submitted_at or 0.0):
                    self.watched.take(event)
            except FedbusError as exc:
                self.watched.fresh.failed(exc)
                await asyncio.sleep(self.app.every_s)
                seen = self.watched
                self.watched = Watched(
                    job=self._job, picture=Picture(job=self._job), detail=detail, sites=seen.sites, fresh=seen.fresh
                )


class SiteScreen(_Opened):
    """One site."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self._site = site
        self.details: dict[str, JobDetail] = {}

    def picture(self) -> RenderableType:
        line, trouble = self.app.overview.site(self._site), self.app.trouble()
        parts: list[RenderableType] = [look.line(trouble, "red")] if trouble else []
        if line is None:
            return Group(*parts, look.line(f"{self._site} is no longer known: it has left, or the aggregator is new"))
        return Group(*parts, *site_parts(line, {job: detail.sites for job, detail in self.details.items()}))

    async def _follow(self) -> None:
        while True:
            line = self.app.overview.site(self._site)
            for job in list(line.jobs)[:MOST_JOBS] if line else ():
                try:
                    if self.app.asked is not None:
                        self.details[job] = await self.app.asked.job(job)
                except FedbusError as exc:
                    self.log(exc)  # the line above says that nobody answers
            await asyncio.sleep(self.app.every_s)


def site_parts(line: SiteLine, numbers: Mapping[str, Mapping[str, SiteInJob]]) -> list[RenderableType]:
    """All that is known of a site: who it is, and what it does for each job. numbers: by job and site."""
    facts = Table.grid(padding=(0, 2))
    ahead_s = line.clock_ahead_s
    clock = "" if ahead_s is None else f"{clock_words(ahead_s)} the aggregator's" if abs(ahead_s) > MUCH_S else "right"
    for name, value in (
        ("site", Text.assemble((line.site, "bold"))),
        ("state", Text.assemble(look.state(line.state), f" since {span(line.since_s)}")),
        ("heard", said(f"{span(line.heard_s)} ago")),
        ("reason", said(line.reason)),
        ("clock", said(clock)),
        ("device", said(line.device)),
        ("fedbus", said(line.fedbus_version)),
        ("tasks", said(", ".join(line.tasks))),
    ):
        if value:
            facts.add_row(Text(name, style="dim"), value)
    if not line.jobs:
        return [facts, Text("\nit does nothing for any job", style="dim")]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("job", no_wrap=True)
    table.add_column("does", overflow="fold")
    for column in ("updates", "refused", "staleness"):
        table.add_column(column, justify="right")
    for job, doing in line.jobs.items():
        found = numbers.get(job, {}).get(line.site)
        of_job = (found.updates, found.refused, f"{found.mean_staleness:.1f}") if found else ("", "", "")
        table.add_row(said(job), said(doing_words(doing)), *map(str, of_job))
    return [facts, Text(), table]
