"""One job as it goes: what a newcomer asks first, curves, sites, and what has happened. Patches follow, see `live`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fedbus.web.job_view import DRAWN, View
from fedbus.web.pages.seam import Asked, Shown, Source

Look = Callable[[str, Sequence[str]], Awaitable[View]]
"""From a job and the sites whose curves are wanted to what is known of it."""

COLUMNS = (
    ("state", "State", ""),
    ("does", "Does", "wide"),
    ("updates", "Updates", "number"),
    ("refused", "Refused", "number"),
    ("staleness", "Staleness", "number"),
    ("influence", "Influence", "number"),
    ("share", "Its share", "number"),
    ("left", "Has left it", "number"),
    ("score", "Its score", "still"),
    ("trouble", "Trouble", "wide"),
)
"""Key, name and class of a column of the table of sites."""
QUESTIONS = (
    ("learning", "Is it learning?"),
    ("slow", "Who is slow?"),
    ("contributed", "What did each site contribute?"),
    ("waiting", "Why does it wait?"),
    ("left", "What left the sites?"),
)
"""What a newcomer asks, each answered by a word of the view."""


async def page(source: Source, asked: Asked, *, look: Look) -> Shown:
    """The job as it is; curves, bars and the log come with the first patch."""
    detail = await source.job(asked.path["job"])
    view = await look(detail.job, asked.query.get("sites", "").split(","))
    context = {
        "page": "jobs",
        "tab": "job",
        "title": detail.name or detail.job,
        "detail": detail,
        "words": view.words,
        "questions": QUESTIONS,
        "rows": view.rows,
        "buffer": view.buffer,
        "columns": COLUMNS,
        "drawn": view.drawn,
        "choose": len(view.rows) > DRAWN,
    }
    return Shown(template="job.html", context=context)
