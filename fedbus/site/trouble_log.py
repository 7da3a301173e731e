"""Lines of the site's own log about a trainer: the only place where a task's words are written."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from fedbus.site.trainer_errors import TrainerDiedError, TrainerFailedError

log = structlog.get_logger()


def log_trouble(event: str, job: str, exc: TrainerDiedError | TrainerFailedError, **facts: object) -> None:
    """What others are told, and beside it the whole text under the same reference."""
    if isinstance(exc, TrainerFailedError):
        facts |= {"reference": exc.reference, "traceback": exc.traceback}
    log.error(event, job=job, error=exc.said, **facts)


def log_notes(job: str, notes: Sequence[str]) -> None:
    """What was left out of a task's answer, and why."""
    for note in notes:
        log.warning("task-answer", job=job, text=note)
