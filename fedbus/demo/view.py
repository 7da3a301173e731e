"""How a running demo looks: a panel that is redrawn in place on a terminal, one plain line per event anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fedbus.console import look
from fedbus.demo.story import SiteStory, Story

PANEL_LINES = 15
MAX_WIDTH = 100


def live(story: Story, console: Console) -> AbstractContextManager[object]:
    """Redraw `story` until the context is left; does nothing where there is no terminal."""
    if not look.on_terminal(console):
        return nullcontext()
    return look.live(lambda: screen(story, width=console.width, height=console.height), console)


def plain_lines(console: Console) -> Callable[[float, str], None]:
    """What prints each sentence as a line of its own; silent on a terminal, where the panel shows them."""
    if look.on_terminal(console):
        return lambda second, text: None
    return lambda second, text: console.print(f"{second:5.1f} s  {text}", highlight=False, markup=False, soft_wrap=True)


def screen(story: Story, *, width: int, height: int) -> RenderableType:
    """The panel and below it as many of the last sentences as fit."""
    width = min(width, MAX_WIDTH)
    room = max(0, height - PANEL_LINES - 1)
    last = story.sentences[-room:] if room else []
    lines = [look.line(f"{second:5.1f} s  {text}", "dim") for second, text in last]
    panel = Panel(
        Group(*_head(story, width - 4), "", sites_table(story, width=width - 4), "", *_legend()),
        title="[bold]fedbus demo[/]: four hospitals train one model",
        width=width,
        border_style="blue",
    )
    return Group(panel, *lines)


def _head(story: Story, width: int) -> list[RenderableType]:
    up = Text("RabbitMQ ", no_wrap=True).append(look.state(story.broker))
    up.append("   aggregator ").append(look.state(story.aggregator))
    up.append(f"   job {story.picture.job or 'not yet submitted'}")
    version, updates = story.picture.version, story.picture.updates
    count = f"version {version} of {story.versions}, {updates} updates, {story.seconds:.0f} s"
    page = [look.line(f"live in a browser: {story.page}", style="cyan")] if story.page else []
    return [up, *page, look.bar(version, story.versions, count, width=width), look.line(story.says)]


def sites_table(story: Story, *, width: int) -> Table:
    """One line per hospital."""
    rows = [_row(name, site) for name, site in story.sites.items()]
    return look.sites_table(rows, width=width, what="hospital", metric="AUC")


def _row(name: str, site: SiteStory) -> look.SiteRow:
    return look.SiteRow(
        name=name,
        state=site.state,
        does=site.does,
        updates=site.seen.updates,
        refused=site.seen.refused,
        staleness=site.seen.mean_staleness if site.seen.updates else None,
        metric=site.auc,
    )


def _legend() -> list[RenderableType]:
    return [
        look.line("staleness  how many versions came out while a hospital trained (mean)", "dim"),
        look.line("AUC        on its own test patients: 0.5 is a coin toss, 1 is never wrong", "dim"),
    ]
