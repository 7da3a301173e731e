"""The panel of one job, for `fedbus watch` and a page of `fedbus top`: exactly as wide and high as it may be."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from fedbus.console import look
from fedbus.console.watched import LOSS, Watched
from fedbus.core.job.status_text import span
from fedbus.core.words import counted
from fedbus.runtime.printable import printable

MOST_LINES_SAID = 3
LEAST_EVENTS = 3
ROOMY = 16
"""In so many lines there is room for curves, for sentences of several lines and for events."""
FRAME = 2
MARGIN = 4


def job_panel(watched: Watched, *, width: int, height: int, now: float, clock: float) -> RenderableType:
    """The panel and below it as many of the last events as fit.

    now: seconds since the epoch. clock: of the clock that the answers were timed by.
    """
    width = min(width, look.MAX_WIDTH)
    inner = max(8, width - MARGIN)
    roomy = height >= ROOMY
    head = [*_head(watched, inner, now), *_said(watched, inner, clock, most=MOST_LINES_SAID if roomy else 1)]
    head += [*_curves(watched, inner), Text("")] if roomy else []
    rows = watched.rows()
    below = max(2, height - FRAME - len(head) - 1 - (LEAST_EVENTS if roomy else 0))
    shown = rows if len(rows) <= below else look.worst_first(rows)[: max(1, below - 1)]
    body = [*head, look.sites_table(shown, width=inner, metric=watched.metric)]
    if len(shown) < len(rows):
        body.append(look.line(f"and {_summary(look.worst_first(rows)[len(shown) :])}", "dim"))
    taken = FRAME + len(head) + 1 + len(shown) + (len(shown) < len(rows))
    panel = Panel(Group(*body), title=_title(watched), width=width, height=taken, border_style="blue")
    return Group(panel, *_events(watched, height - taken))


def _title(watched: Watched) -> Text:
    task = watched.detail.task if watched.detail else None
    title = Text(printable(watched.job), style="bold")
    return title.append(f"  {printable(task)}", "not bold") if task else title


def _head(watched: Watched, width: int, now: float) -> Iterator[RenderableType]:
    """Its state, how far it is, since when."""
    state = look.state(watched.state or "asking")
    goal, after = watched.goal(), span(watched.seconds(now))
    counts = f"{counted(watched.updates, 'update')}, {after}"
    if goal is None:
        yield Text.assemble(state, f"  version {watched.version}, {counts}", no_wrap=True, overflow="ellipsis")
        return
    done, most, name = goal
    if name == "versions":
        words = f"version {done:.0f} of {most:.0f}, {counts}"
    else:
        words = f"version {watched.version}, {done:.0f} of {most:.0f} updates, {after}"
    if width >= len(words) + state.cell_len + 12:
        yield look.bar(done, most, words, width=width, before=state)
    else:
        yield Text.assemble(state, f"  {words}", no_wrap=True, overflow="ellipsis")


def _said(watched: Watched, width: int, clock: float, *, most: int) -> list[RenderableType]:
    """The sentence that counts, on so many lines as it needs; in red what is in the way of knowing more."""
    said: list[RenderableType] = []
    if trouble := watched.fresh.trouble(clock):
        said += _folded(trouble, width, most, style="red")
    return [*said, *_folded(watched.says, width, most)]


def _folded(text: str, width: int, most: int, *, style: str = "") -> list[RenderableType]:
    """A text on at most so many lines of so many columns."""
    lines = textwrap.wrap(printable(text), width)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [look.line(one, style) for one in lines]


def _curves(watched: Watched, width: int) -> Iterator[RenderableType]:
    """The mean of the metric over the sites, and the mean loss of their training."""
    for name, curve in ((watched.metric, watched.picture.means), (LOSS, watched.losses)):
        values = curve.columns.get(name, ())
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            label = f"{name} of training" if curve is watched.losses else name
            words = f"{finite[-1]:.4g}, from {min(finite):.4g} to {max(finite):.4g}"
            yield look.Sparkline(name=label, values=finite, words=words, width=width)


def _summary(rows: Sequence[look.SiteRow]) -> str:
    states = sorted({row.state for row in rows})
    counts = ", ".join(f"{sum(row.state == one for row in rows)} {one}" for one in states)
    return f"{counted(len(rows), 'more site')}: {counts}"


def _events(watched: Watched, room: int) -> list[RenderableType]:
    last = list(watched.picture.said)[-room:] if room > 0 else []
    return [look.line(f"{look.time_of_day(one.at)}  {one.text}", "dim") for one in last]
