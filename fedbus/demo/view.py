"""How a running demo looks: a panel that is redrawn in place on a terminal, one plain line per event anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedbus.demo.story import SiteStory, Story

REDRAWS_PER_S = 4
PANEL_LINES = 15
MAX_WIDTH = 100
STATE_STYLES = {"here": "green", "left": "yellow", "lost": "red", "starting": "cyan", "up": "green"}


def live(story: Story, console: Console) -> AbstractContextManager[object]:
    """Redraw `story` until the context is left; does nothing where there is no terminal."""
    if not on_terminal(console):
        return nullcontext()
    return Live(
        get_renderable=lambda: screen(story, width=console.width, height=console.height),
        console=console,
        refresh_per_second=REDRAWS_PER_S,
        transient=True,
    )


def on_terminal(console: Console) -> bool:
    """Whether something can be redrawn in place. FORCE_COLOR makes no terminal of a file."""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


def plain_lines(console: Console) -> Callable[[float, str], None]:
    """What prints each sentence as a line of its own; silent on a terminal, where the panel shows them."""
    if on_terminal(console):
        return lambda second, text: None
    return lambda second, text: console.print(f"{second:5.1f} s  {text}", highlight=False, markup=False, soft_wrap=True)


def screen(story: Story, *, width: int, height: int) -> RenderableType:
    """The panel and below it as many of the last sentences as fit."""
    width = min(width, MAX_WIDTH)
    room = max(0, height - PANEL_LINES - 1)
    last = story.sentences[-room:] if room else []
    lines = [_line(f"{second:5.1f} s  {text}", style="dim") for second, text in last]
    panel = Panel(
        Group(*_head(story, width - 4), "", sites_table(story), "", *_legend()),
        title="[bold]fedbus demo[/]: four hospitals train one model",
        width=width,
        border_style="blue",
    )
    return Group(panel, *lines)


def _head(story: Story, width: int) -> list[RenderableType]:
    up = Text("RabbitMQ ", no_wrap=True).append(story.broker, style=STATE_STYLES.get(story.broker, ""))
    up.append("   aggregator ").append(story.aggregator, style=STATE_STYLES.get(story.aggregator, ""))
    up.append(f"   job {story.picture.job or 'not yet submitted'}")
    version, updates = story.picture.version, story.picture.updates
    count = f"version {version} of {story.versions}, {updates} updates, {story.seconds:.0f} s"
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(total=story.versions, completed=version, width=max(8, width - len(count) - 2)), count)
    page = [_line(f"live in a browser: {story.page}", style="cyan")] if story.page else []
    return [up, *page, bar, _line(story.says)]


def sites_table(story: Story) -> Table:
    """One line per hospital."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, width in (("hospital", 13), ("state", 8), ("does", 22)):
        table.add_column(column, no_wrap=True, overflow="ellipsis", width=width)
    for column in ("updates", "staleness", "AUC"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, site in story.sites.items():
        state = Text(site.state, style=STATE_STYLES.get(site.state, "dim"))
        table.add_row(name, state, site.does, *_numbers(site))
    return table


def _numbers(site: SiteStory) -> tuple[str, str, str]:
    staleness = f"{site.seen.mean_staleness:.1f}" if site.seen.updates else ""
    return str(site.seen.updates or ""), staleness, "" if site.auc is None else f"{site.auc:.3f}"


def _legend() -> list[RenderableType]:
    return [
        _line("staleness  how many versions came out while a hospital trained (mean)", style="dim"),
        _line("AUC        on its own test patients: 0.5 is a coin toss, 1 is never wrong", style="dim"),
    ]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
