"""What a browser is sent while it looks: patches, each what has changed since the one before.

Nothing is queued for a browser. A patch is made when its connection takes one, from what is known then, so a browser
that reads slowly gets fewer and larger ones, and one that never reads costs a cursor and is left after SEND_S. There is
one patch in BEAT_S at most, see `feed`.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from typing import Any

import structlog

from fedbus.console.fetch import AskedInVainError
from fedbus.errors import FedbusError
from fedbus.web.feed import BEAT_S, Feed, as_told
from fedbus.web.job_view import View, curve_from, picture_of, said_as_told, sites_drawn, view_of
from fedbus.web.pages.seam import Source

LOOK_S = 1.0
MOST_LINES = 100
SHARED_S = 0.8 * BEAT_S
MOST_SHARED = 64
PARTS = ("buffer", "staleness", "influence", "ended")
Message = dict[str, str]

log = structlog.get_logger()


NOTHING = View(words={}, rows={}, stamp=-1, log_end=-1)
"""What a browser has before the first patch."""


class Sent:
    """What a browser has; a message that brings many of them from one view to the next is made once."""

    def __init__(self) -> None:
        self._was = NOTHING

    def patch(self, view: View) -> dict[str, Any]:
        """What is new in this view; empty when nothing is."""
        found, self._was = patch_between(self._was, view), view
        return found

    def message(self, view: View) -> Message | None:
        """The same as a message; None when nothing is new."""
        known = view.messages.get(self._was.number)
        if known is None:
            patch = patch_between(self._was, view)
            known = view.messages[self._was.number] = json.dumps(patch, separators=(",", ":"), allow_nan=False)
        self._was = view
        return None if known == "{}" else {"event": "patch", "data": known}


def patch_between(was: View, view: View) -> dict[str, Any]:
    """What who has seen `was` lacks."""
    same = was if was.whose == view.whose else NOTHING
    parts = {name: getattr(view, name) for name in PARTS if was is NOTHING or getattr(was, name) != getattr(view, name)}
    rows, curves = was.rows, same.curves
    found = {
        "words": {name: text for name, text in view.words.items() if was.words.get(name) != text},
        "rows": {name: row for name, row in view.rows.items() if rows.get(name) != row},
        "gone": [name for name in rows if name not in view.rows],
        "curves": {
            name: curve_from(curve, start)
            for name, curve in view.curves.items()
            if (start := curve.since(same.stamp) if name in curves else 0) < len(curve)
        },
        "log": _lines(view, view.log_end - max(same.log_end, 0)),
        "events": view.log_end if view.log_end != same.log_end else None,
    }
    return {name: part for name, part in found.items() if part} | parts


def _lines(view: View, new: int) -> list[dict[str, Any]]:
    """The newest lines of the log, so many of them."""
    shown = min(max(0, new), len(view.log), MOST_LINES)
    return [said_as_told(said) for said in view.log[len(view.log) - shown :]]


class Looks:
    """Views of jobs, shared by all who look at the same for as long as a beat."""

    def __init__(self, feed: Feed, answers: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._feed = feed
        self._answers = answers
        self._clock = clock
        self._made: OrderedDict[tuple[str, ...], tuple[float, View]] = OrderedDict()
        self._count = count()

    async def view(self, job: str, wanted: Sequence[str]) -> View:
        """A job as it is now. Raises AskedInVainError when there is none, NoAnswerError when nothing is known of it."""
        key = (job, *wanted)
        made = self._made.get(key)
        if made is not None and self._clock() < made[0] + SHARED_S:
            return made[1]
        view = await self._view(job, wanted)
        self._made[key] = (self._clock(), view)
        self._made.move_to_end(key)
        while len(self._made) > MOST_SHARED:
            self._made.popitem(last=False)
        return view

    async def _view(self, job: str, wanted: Sequence[str]) -> View:
        detail = await self._answers.job(job)
        sites = await self._answers.sites() if detail.ended_at is None else []
        picture, whose = self._feed.picture(job), f"events {self._feed.generation}"
        if picture is None or not picture.whole:
            history = await self._answers.history(job)
            picture, whose = picture_of(detail, history), f"history {len(history)}"
        drawn = sites_drawn(sorted({*detail.sites, *picture.sites}), wanted)
        number = next(self._count)
        return view_of(detail, sites, picture, drawn=drawn, now=time.time(), whose=whose, number=number)


async def job_messages(feed: Feed, looks: Looks, job: str, wanted: Sequence[str]) -> AsyncIterator[Message]:
    """Patches of the page of a job, for ever; `trouble` when the link of the page changes, `gone` at last."""
    sent, told = Sent(), ""
    while not feed.closed:
        patch: Message | None = None
        try:
            patch = sent.message(await looks.view(job, wanted))
        except AskedInVainError as exc:
            yield {"event": "gone", "data": str(exc)}
            return
        except FedbusError as exc:
            log.debug("page-look", job=job, reason=str(exc))  # the trouble says it
        if told != (link := link_of(feed)):
            told = link
            yield {"event": "link", "data": link}
        if patch is not None:
            yield patch
        await feed.moved(within_s=LOOK_S)


async def beats(feed: Feed, answers: Source) -> AsyncIterator[Message]:
    """A beat for a page that asks for itself anew, when something may have changed; `link` as above."""
    told = ""
    seen: object = None
    first = True
    while not feed.closed:
        now = seen
        try:
            now = (await answers.jobs(), await answers.sites())
        except FedbusError as exc:
            log.debug("page-beat", reason=str(exc))
        if told != (link := link_of(feed)):
            told = link
            yield {"event": "link", "data": link}
        if not first and now != seen:
            yield {"event": "beat", "data": ""}
        seen, first = now, False
        await feed.moved(within_s=LOOK_S)


def link_of(feed: Feed) -> str:
    """What is away and since when, and how many events of the past have been read while they are; as JSON."""
    return json.dumps({"trouble": as_told(feed.trouble), "reading": feed.reading}, separators=(",", ":"))
