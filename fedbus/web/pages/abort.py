"""Ending a job: the question, and what comes of a yes."""

from __future__ import annotations

from fedbus.web.pages.seam import Asked, Goto, Shown, Source

MOST_REASON = 200


async def question(source: Source, asked: Asked) -> Shown:
    """Whether this job shall end, and what is kept of it."""
    detail = await source.job(asked.path["job"])
    context = {"page": "jobs", "title": f"Abort {detail.job}?", "detail": detail, "most_reason": MOST_REASON}
    return Shown(template="abort.html", context=context)


async def abort(source: Source, asked: Asked) -> Goto:
    """End it, with the reason that was given."""
    job = asked.path["job"]
    await source.abort(job, asked.form.get("reason", "").strip()[:MOST_REASON] or None)
    return Goto(path=f"/jobs/{job}")
