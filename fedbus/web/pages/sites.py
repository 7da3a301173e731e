"""The sites side by side: who is there, what each does and has, and what it takes no part in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedbus.core.job.membership import SiteState
from fedbus.core.job.skew import MUCH_S
from fedbus.core.job.status_text import clock_words, in_words, span
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.answers import Doing, JobDetail, SiteLine
from fedbus.core.words import counted
from fedbus.web.pages.seam import Asked, Shown, Source
from fedbus.web.words import ago, bytes_words

MOST_JOBS = 20
"""Running jobs whose details are asked for: what a site gave to them, and why it takes no part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a site does for one job, in words; `examples` it trained on last, None: not known."""

    job: str
    does: str
    step: int = 0
    steps: int = 0
    device: str = ""
    memory: str = ""
    examples: int | None = None
    updates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One site."""

    site: str
    state: str
    heard: str
    since: str
    device: str
    memory: str
    queue: str
    release: str
    tasks: Sequence[str]
    works: Sequence[Work]
    declined: Sequence[tuple[str, str]]
    remark: str = ""


async def page(source: Source, asked: Asked) -> Shown:
    """All sites; of those with a name like `?q=`."""
    lines = await source.sites()
    details = await _running(source)
    wanted = asked.query.get("q", "").strip().lower()[:40]
    shown = [line for line in lines if wanted in line.site]
    context = {
        "page": "sites",
        "title": "Sites",
        "says": says(lines),
        "cards": cards(shown, details),
        "q": wanted,
        "known": len(lines),
    }
    return Shown(template="sites.html", context=context)


async def _running(source: Source) -> list[JobDetail]:
    running = [line.job for line in await source.jobs() if line.ended_at is None]
    return [await source.job(job) for job in running[-MOST_JOBS:]]


def says(lines: Sequence[SiteLine]) -> str:
    """Who is there and who is missing, in one sentence."""
    if not lines:
        return "No site has joined since the aggregator started."
    there = sum(line.state == SiteState.ONLINE for line in lines)
    lost = [f"{line.site} (silent for {span(line.heard_s)})" for line in lines if line.state == SiteState.LOST]
    left = sum(line.state == SiteState.LEFT for line in lines)
    parts = [f"{counted(there, 'site')} of {len(lines)} {'is' if there == 1 else 'are'} online"]
    parts += [f"lost: {in_words(lost[:5])}" + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")] if lost else []
    parts += [f"{left} left"] if left else []
    return "; ".join(parts) + "."


def cards(lines: Sequence[SiteLine], details: Sequence[JobDetail]) -> list[Card]:
    """The sites in order of their names."""
    return [_card(line, details) for line in sorted(lines, key=lambda line: line.site)]


def _card(line: SiteLine, details: Sequence[JobDetail]) -> Card:
    numbers = {detail.job: detail.sites[line.site] for detail in details if line.site in detail.sites}
    works = [
        Work(
            job=job,
            does=", ".join(filter(None, (doing.activity, doing.detail))),
            step=doing.step,
            steps=doing.steps,
            device=doing.device,
            memory=memory(doing),
            examples=(numbers[job].num_examples or None) if job in numbers else None,
            updates=numbers[job].updates if job in numbers else 0,
        )
        for job, doing in sorted(line.jobs.items())
    ]
    used = sorted({doing.device for doing in line.jobs.values() if doing.device})
    ahead_s = line.clock_ahead_s or 0.0
    clock = f"its clock is {clock_words(ahead_s)} the aggregator's" if abs(ahead_s) > MUCH_S else ""
    return Card(
        site=line.site,
        state=line.state,
        heard=ago(line.heard_s),
        since=span(line.since_s),
        device=", ".join(used) or line.device,
        memory="; ".join(dict.fromkeys(work.memory for work in works if work.memory)),
        queue=queue(line.jobs),
        release=line.fedbus_version,
        tasks=line.tasks,
        works=works,
        declined=list(_declined(line.site, details)),
        remark="; ".join(filter(None, (line.reason, clock))),
    )


def memory(doing: Doing) -> str:
    """How much of its GPU's memory is taken; empty where there is none, or a site of an earlier release."""
    if not doing.memory_bytes:
        return ""
    return f"{bytes_words(doing.memory_used_bytes)} of {bytes_words(doing.memory_bytes)}"


def queue(jobs: Mapping[str, Doing]) -> str:
    """How many jobs are under way at a site, and how many wait for a place there."""
    if not jobs:
        return "no job"
    waiting = sum(doing.activity == Activity.QUEUED for doing in jobs.values())
    return f"{len(jobs) - waiting} under way" + (f", {waiting} waiting for a place" if waiting else "")


def _declined(site: str, details: Sequence[JobDetail]) -> Iterator[tuple[str, str]]:
    for detail in details:
        if why := (detail.declined or {}).get(site):
            yield detail.job, why
