"""What left the sites: updates and bytes by site and job, and the heads of the audit logs that hold them to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedbus.core.protocol.answers import AuditHead, AuditHeads, Sent
from fedbus.core.words import counted
from fedbus.web.pages.seam import Asked, Shown, Source
from fedbus.web.words import bytes_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Of one site and job. at: when the newest came, seconds since the epoch; None: nothing came."""

    site: str
    job: str
    updates: int = 0
    update_bytes: int = 0
    at: float | None = None
    head: AuditHead | None = None


async def page(source: Source, asked: Asked) -> Shown:
    """Of all sites and jobs, or those of `?site=` and `?job=`."""
    answer = await source.what_left()
    site, job = (asked.query.get(name, "").strip()[:80] for name in ("site", "job"))
    rows = [row for row in lefts(answer) if site in ("", row.site) and job in ("", row.job)]
    context = {
        "page": "left",
        "title": "What left the sites",
        "says": says(rows),
        "rows": rows,
        "sites": sorted({row.site for row in lefts(answer)}),
        "jobs": sorted({row.job for row in lefts(answer)}),
        "site": site,
        "job": job,
    }
    return Shown(template="left.html", context=context)


def lefts(answer: AuditHeads) -> list[Left]:
    """One for each site and job that something came from, in order of the sites, the newest job first."""
    sent: dict[tuple[str, str], Sent] = {(one.site, one.job): one for one in answer.sent}
    heads = {(one.site, one.job): one for one in answer.heads}
    rows = [_left(*key, sent.get(key), heads.get(key)) for key in sorted({*sent, *heads})]
    return sorted(rows, key=lambda row: (row.site, -(row.at or 0.0)))


def _left(site: str, job: str, sent: Sent | None, head: AuditHead | None) -> Left:
    if sent is None:
        return Left(site=site, job=job, head=head, at=None if head is None else head.at)
    return Left(site=site, job=job, updates=sent.updates, update_bytes=sent.update_bytes, at=sent.at, head=head)


def says(rows: Sequence[Left]) -> str:
    """The sum of it, in one sentence."""
    if not rows:
        return "Nothing has left a site yet."
    updates, size = sum(row.updates for row in rows), sum(row.update_bytes for row in rows)
    sites = counted(len({row.site for row in rows}), "site")
    return f"{counted(updates, 'update')} of {bytes_words(size)} in all left {sites}."
