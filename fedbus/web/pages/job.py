"""One job as it goes: what a newcomer asks first, curves, sites, and what has happened. Patches follow, see `live`."""

from __future__ import annotations

from fedbus.web.pages.seam import Asked, Shown, Source

from fedbus.console.picture import Picture
from fedbus.web.job_view import DRAWN, MOST_DRAWN, sites_drawn, view_of

COLUMNS = (
    ("state", "State", ""),
    ("does", "Does", "wide"),
    ("updates", "Updates", "number"),
    ("refused", "Refused", "number"),
    ("staleness", "Staleness", "number"),
    ("influence", "Influence", "number"),
    ("share", "Its share", "number"),
    ("left", "Has left it", "number"),
    ("score", "Its score", ""),
    ("trouble", "Trouble", "wide"),
)
"""Key, name and class of a column of the table of sites."""


async def page(source: Source, asked: Asked) -> Shown:
    """The job as answers tell it; what its events tell comes with the first patch."""
    detail = await source.job(asked.path["job"])
    sites = await source.sites() if detail.ended_at is None else []
    names = sorted(detail.sites)
    drawn = sites_drawn(names, asked.query.get("sites", "").split(",")[:MOST_DRAWN])
    view = view_of(detail, sites, Picture(job=detail.job), drawn=drawn, now=asked.now, whose="")
    context = {
        "page": "jobs",
        "tab": "job",
        "title": detail.name or detail.job,
        "detail": detail,
        "words": view.words,
        "rows": view.rows,
        "columns": COLUMNS,
        "drawn": drawn,
        "choose": len(names) > DRAWN,
    }
    return Shown(template="job.html", context=context)
