"""Trainers of which the site's audit log tells: one line when a process has started, one when it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fedbus.audit.writer import Audit
from fedbus.site.job.loop import StartTrainer
from fedbus.site.job.trainer import Trainer
from fedbus.store.audit_kinds import Kind


def audited(start: StartTrainer, audit: Audit, job: str) -> StartTrainer:
    """The same way to start a trainer, with its lines."""

    @asynccontextmanager
    async def starting(*args: Any, **kwargs: Any) -> AsyncIterator[Trainer]:
        async with start(*args, **kwargs) as trainer:
            audit.note(Kind.TRAINER_STARTED, job=job, pid=trainer.pid)
            how = "closed"
            try:
                yield trainer
            except BaseException as exc:
                how = type(exc).__name__
                raise
            finally:
                audit.note(Kind.TRAINER_ENDED, job=job, pid=trainer.pid, how=how)

    def begin(*args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Trainer]:
        return starting(*args, **kwargs)

    return begin
