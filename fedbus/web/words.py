"""Numbers, times and states in a few words, for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from fedbus.core.job.membership import SiteState
from fedbus.core.job.status_text import span
from fedbus.core.protocol.messages import JobState

JUST_NOW_S = 10.0
_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        SiteState.ONLINE: "good",
        SiteState.LOST: "problem",
        SiteState.LEFT: "",
        JobState.SUBMITTED: "",
        JobState.WAITING: "warning",
        JobState.RUNNING: "good",
        JobState.FINISHING: "good",
        JobState.FINISHED: "done",
        JobState.FAILED: "problem",
        JobState.ABORTED: "warning",
    }
)


def state_class(state: str | None) -> str:
    """The look of the state of a job or a site; plain for one of a later release."""
    return _CLASSES.get(state or "", "")


def ago(seconds: float) -> str:
    """How long ago; what is recent changes no word, so that a page which is looked at stays still."""
    return "just now" if seconds < JUST_NOW_S else f"{span(seconds)} ago"


def clock(at: float | None) -> str:
    """A moment of today as a time, another one with its date; local."""
    if at is None:
        return ""
    moment = datetime.fromtimestamp(at).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M}"


def bytes_words(count: float) -> str:
    """Bytes in their largest fitting unit."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def share(part: float | None) -> str:
    """A share in per cent; empty for one that is not known."""
    if part is None or not math.isfinite(part):
        return ""
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"
