"""What a browser is sent while it looks: patches, each what has changed since the one before.

Nothing is queued for a browser. A patch is made when its connection takes one, from what is known then, so a browser
that reads slowly gets fewer and larger ones, and one that never reads costs a cursor and is left after SEND_S. There is
one patch in BEAT_S at most, see `feed`.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Any

import structlog

from fedbus.console.fetch import AskedInVainError
from fedbus.errors import FedbusError
from fedbus.web.feed import Feed, Trouble, as_told
from fedbus.web.job_view import View, curve_from, picture_of, said_as_told, sites_drawn, view_of
from fedbus.web.pages.seam import Source

LOOK_S = 1.0
MOST_LINES = 100
Message = dict[str, str]

log = structlog.get_logger()


class Sent:
    """What a browser has: `patch` gives what it lacks."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._rows: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}
        self._curves: frozenset[str] = frozenset()
        self._whose = ""
        self._stamp = self._log_end = -1

    def patch(self, view: View) -> dict[str, Any]:
        """What is new in this view; empty when nothing is."""
        if view.whose != self._whose:
            self._whose, self._stamp, self._log_end, self._curves = view.whose, -1, -1, frozenset()
        words = {name: text for name, text in view.words.items() if self._words.get(name) != text}
        rows = {name: row for name, row in view.rows.items() if self._rows.get(name) != row}
        gone = [name for name in self._rows if name not in view.rows]
        now = {
            "events": view.log_end,
            "buffer": view.buffer,
            "staleness": view.staleness,
            "influence": view.influence,
            "ended": view.ended,
        }
        parts = {name: part for name, part in now.items() if self._parts.get(name) != part}
        curves = {
            name: curve_from(curve, start)
            for name, curve in view.curves.items()
            if (start := curve.since(self._stamp) if name in self._curves else 0) < len(curve)
        }
        lines = self._lines(view)
        self._words, self._rows, self._parts = dict(view.words), dict(view.rows), now
        self._curves, self._stamp, self._log_end = frozenset(view.curves), view.stamp, view.log_end
        found = {"words": words, "rows": rows, "gone": gone, "curves": curves, "log": lines, **parts}
        return {name: part for name, part in found.items() if part or name in parts}

    def _lines(self, view: View) -> list[dict[str, Any]]:
        new = min(view.log_end - max(self._log_end, 0), len(view.log), MOST_LINES)
        return [said_as_told(said) for said in islice(view.log, len(view.log) - max(0, new), None)]


async def look(feed: Feed, answers: Source, job: str, wanted: Sequence[str]) -> View:
    """A job as it is now. Raises AskedInVainError when there is none, NoAnswerError when nothing is known of it yet."""
    detail = await answers.job(job)
    sites = await answers.sites() if detail.ended_at is None else []
    picture, whose = feed.picture(job), f"events {feed.generation}"
    if picture is None or not picture.whole:
        history = await answers.history(job)
        picture, whose = picture_of(detail, history), f"history {len(history)}"
    drawn = sites_drawn(sorted({*detail.sites, *picture.sites}), wanted)
    return view_of(detail, sites, picture, drawn=drawn, now=time.time(), whose=whose)


async def job_messages(feed: Feed, answers: Source, job: str, wanted: Sequence[str]) -> AsyncIterator[Message]:
    """Patches of the page of a job, for ever; `trouble` when the link of the page changes, `gone` at last."""
    sent, first = Sent(), True
    trouble: Trouble | None = None
    while not feed.closed:
        patch: dict[str, Any] = {}
        try:
            patch = sent.patch(await look(feed, answers, job, wanted))
        except AskedInVainError as exc:
            yield {"event": "gone", "data": str(exc)}
            return
        except FedbusError as exc:
            log.debug("page-look", job=job, reason=str(exc))  # the trouble says it
        if first or trouble != feed.trouble:
            trouble, first = feed.trouble, False
            yield _message("link", {"trouble": as_told(trouble), "reading": feed.reading})
        if patch:
            yield _message("patch", patch)
        await feed.moved(within_s=LOOK_S)


async def beats(feed: Feed, answers: Source) -> AsyncIterator[Message]:
    """A beat for a page that asks for itself anew, when something may have changed; `link` as above."""
    trouble: Trouble | None = None
    seen: object = None
    first = True
    while not feed.closed:
        now = seen
        try:
            now = (await answers.jobs(), await answers.sites())
        except FedbusError as exc:
            log.debug("page-beat", reason=str(exc))
        if first or trouble != feed.trouble:
            trouble = feed.trouble
            yield _message("link", {"trouble": as_told(trouble), "reading": feed.reading})
        if not first and now != seen:
            yield {"event": "beat", "data": ""}
        seen, first = now, False
        await feed.moved(within_s=LOOK_S)


def _message(event: str, data: dict[str, Any]) -> Message:
    return {"event": event, "data": json.dumps(data, separators=(",", ":"), allow_nan=False)}
