"""What a job has come to: waiting for its end, and the models and the data check that its detail holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedbus.core.protocol.answers import CheckReport, JobDetail, ScoredModel, from_json
from fedbus.core.protocol.events import JobEnded

if TYPE_CHECKING:
    from fedbus.console.client import Client


async def when_ended(client: Client, job: str) -> JobDetail:
    """Return the job as it is when it has ended, also over an outage of the broker; at once when it has."""
    detail = await client.job(job)
    if detail.ended_at is not None:
        return detail
    async for event in client.events(job, submitted_at=detail.submitted_at or 0.0):
        if event.kind == JobEnded.kind:
            break
    return await client.job(job)


def models_of(detail: JobDetail) -> tuple[ScoredModel, ...]:
    """What was measured so far, or in the end."""
    kept = (detail.result or {}).get("models", ())
    return detail.models or tuple(from_json(ScoredModel, model) for model in kept)


def check_of(detail: JobDetail) -> CheckReport | None:
    """What the data check has found so far, or in the end."""
    kept = (detail.result or {}).get("check")
    return from_json(CheckReport, kept) if kept else detail.check
