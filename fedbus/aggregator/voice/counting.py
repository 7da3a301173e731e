"""What of an event is counted for Prometheus, see `runtime.metrics`."""

from __future__ import annotations

from fedbus.core.protocol import events as e
from fedbus.runtime import metrics as n
from fedbus.runtime.metrics import Metrics


def count(metrics: Metrics, job: str, happened: e.Happened, *, at: float) -> None:
    """Count an event of a job; `at` in seconds since the epoch."""
    match happened:
        case e.UpdateFolded():
            metrics.add(n.UPDATES, job_id=job, site=happened.site, outcome="folded")
            metrics.observe(n.STALENESS, happened.staleness, job_id=job)
            metrics.set(n.JOB_PROGRESS, at, job_id=job)
        case e.UpdateRefused(initial=False, local=False):
            metrics.add(n.UPDATES, job_id=job, site=happened.site, outcome="refused")
        case e.VersionCommitted():
            metrics.add(n.VERSIONS, job_id=job)
            metrics.add(n.PUBLISHED_BYTES, happened.body_bytes, job_id=job)
            metrics.observe(n.PUBLISH_S, happened.publish_s, job_id=job)
            metrics.set(n.JOB_PROGRESS, at, job_id=job)
        case e.JobSubmitted() | e.JobRunning() | e.JobContinues() | e.VersionScored():
            metrics.set(n.JOB_PROGRESS, at, job_id=job)
        case e.JobEnded():
            metrics.ended(job)
        case _:
            pass
