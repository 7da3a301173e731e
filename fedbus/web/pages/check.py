"""What the data check of a job has found."""

from __future__ import annotations

from fedbus.console.report.check import check_sections
from fedbus.web.pages.seam import Asked, Shown, Source


async def page(source: Source, asked: Asked) -> Shown:
    """Findings, the worst first, and what the sites said of their data; empty for a job without a check."""
    detail = await source.job(asked.path["job"])
    context = {
        "page": "jobs",
        "tab": "check",
        "title": f"Data check of {detail.name or detail.job}",
        "detail": detail,
        "scored_in": None,
        "sections": list(check_sections(detail, ())),
        "can_score": False,
    }
    return Shown(template="sections.html", context=context)
