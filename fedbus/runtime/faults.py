"""Kill points: places at which a chaos run ends a daemon on purpose, to prove that nothing is lost or counted twice.

In production `reached` is `nothing`, one call that returns. `FEDBUS_FAULT=POINT:N` makes the N-th time that the process
reaches POINT its last moment: SIGKILL from within, no clean-up, like the kernel's out-of-memory killer.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from enum import StrEnum

from fedbus.errors import SettingsError


class Point(StrEnum):
    """Where a daemon can be killed; the words say what was done last and what has not been done yet."""

    # aggregator, one update
    SPOOLED = "spooled-not-recorded"
    RECORDED = "recorded-not-acked"
    ACKED = "acked"
    COMPLETE = "complete-not-taken"
    FOLDED = "folded-not-recorded"
    DECIDED = "decided-not-told"
    # aggregator, one version
    COMMIT_RECORDED = "commit-recorded-not-made"
    COMMITTED = "version-made-not-published"
    BETWEEN_CHUNKS = "between-chunks-of-a-version"
    BEFORE_MANIFEST = "before-the-manifest-of-a-version"
    PUBLISHED = "published-not-marked"
    MARKED = "marked"
    BEFORE_CHECKPOINT = "before-a-checkpoint"
    CHECKPOINT = "checkpoint-bodies-not-dropped"
    CHECKPOINT_DONE = "after-a-checkpoint"
    # aggregator, the end of a job
    FINISHING = "finishing-not-scored"
    ENDED = "ended-not-cleared"
    # site
    SITE_COMMITTED = "site-in-outbox-not-sent"
    SITE_BETWEEN_CHUNKS = "site-between-chunks-of-an-update"
    SITE_BEFORE_MANIFEST = "site-before-the-manifest-of-an-update"
    SITE_CONFIRMED = "site-confirmed"
    SITE_RECEIPT = "site-receipt-not-taken"
    SITE_VERSION = "site-version-arriving"

    @property
    def of_site(self) -> bool:
        return self.value.startswith("site-")


Reached = Callable[[Point], None]


def nothing(point: Point) -> None:
    """In production no point is special."""


def fault_hook(text: str | None) -> Reached:
    """What to call at each point; `text` is `POINT`, `POINT:N` or None for never. SettingsError for anything else."""
    if not text:
        return nothing
    name, _, count = text.partition(":")
    try:
        fatal, times = Point(name), int(count or 1)
    except ValueError:
        raise SettingsError(f"FEDBUS_FAULT: expected POINT or POINT:N with POINT one of {', '.join(Point)}") from None
    visits = itertools.count(1)

    def reached(point: Point) -> None:
        if point is fatal and next(visits) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
