"""All jobs: which run, how far they are and why they wait; those that have ended below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedbus.core.job.status_text import span
from fedbus.core.protocol.answers import JobLine
from fedbus.core.words import counted
from fedbus.web.pages.seam import Asked, Shown, Source
from fedbus.web.words import clock

MOST_ENDED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One job in words."""

    job: str
    name: str
    task: str
    state: str
    says: str
    version: str
    updates: str
    when: str


async def page(source: Source, asked: Asked) -> Shown:
    """All jobs, the newest first; of those that have ended the newest MOST_ENDED."""
    lines = await source.jobs()
    going = [_line(line, asked.now) for line in reversed(lines) if line.ended_at is None]
    ended = [_line(line, asked.now) for line in reversed(lines) if line.ended_at is not None]
    context = {
        "page": "jobs",
        "title": "Jobs",
        "says": says(lines),
        "going": going,
        "ended": ended[:MOST_ENDED],
        "not_shown": max(0, len(ended) - MOST_ENDED),
    }
    return Shown(template="jobs.html", context=context)


def says(lines: Sequence[JobLine]) -> str:
    """What goes on, in one sentence."""
    going = [line for line in lines if line.ended_at is None]
    running = sum(line.started_at is not None for line in going)
    if not lines:
        return "No job has been submitted yet."
    if not going:
        return f"Nothing runs; {counted(len(lines), 'job')} {'has' if len(lines) == 1 else 'have'} ended."
    waits = f", {len(going) - running} waiting to begin" if len(going) > running else ""
    return f"{counted(running, 'job')} running{waits}."


def _line(line: JobLine, now: float) -> Line:
    return Line(
        job=line.job,
        name=line.name or line.job,
        task=line.task or "",
        state=line.state,
        says=line.says,
        version="" if line.version is None else f"{line.version:,}",
        updates="" if line.updates is None else f"{line.updates:,}",
        when=_when(line, now),
    )


def _when(line: JobLine, now: float) -> str:
    if line.started_at is None:
        return f"submitted {clock(line.submitted_at)}" if line.ended_at is None else f"ended {clock(line.ended_at)}"
    if line.ended_at is None:
        return f"for {span(now - line.started_at)}"
    return f"{clock(line.ended_at)}, took {span(line.ended_at - line.started_at)}"
