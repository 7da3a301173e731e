"""Which version of the global model a site gives back to its annotation server, and when.

Every `hand_back_every` versions and when training is over, never one that scored worse at this site, by the metric that
ranks the job's versions, than the one that was given last: radiologists shall see better proposals, not worse. The
trainer writes the file, from params whose digest was verified, and reads it back; a child process of the site hands it
over, and training goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from fedbus.core.job.training import ranking_of
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.site.job.trainer import Trainer
from fedbus.site.trainer_errors import TrainerFailedError
from fedbus.site.trouble_log import log_trouble
from fedbus.sources.settings import SourceSettings
from fedbus.training import protocol as p

LAST_ONE = timedelta(seconds=60)

log = structlog.get_logger()
Publish = Callable[[Path], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who takes models back at this site."""

    settings: SourceSettings
    publish: Publish


class HandBack:
    """Of one job. Files are written into `folder`; `receiver` is None where nobody takes a model."""

    def __init__(self, job: str, spec: JobSpec, *, folder: Path, receiver: Receiver | None) -> None:
        self._job = job
        self._folder = folder
        wanted = isinstance(spec, TrainingSpec) and receiver is not None and receiver.settings.model_task == spec.task
        self._receiver = receiver if wanted else None
        self._metric, self._better = ranking_of(spec) if isinstance(spec, TrainingSpec) else ("", "higher")
        self._scored: tuple[int, float | None] = -1, None
        self._given = 0
        self._given_value: float | None = None
        self._waiting: asyncio.Queue[tuple[Path, int]] = asyncio.Queue()

    def scored(self, version: int, metrics: Mapping[str, float]) -> None:
        """This site has scored a version."""
        self._scored = version, metrics.get(self._metric)

    def is_due(self, version: int, *, over: bool = False) -> bool:
        """Whether a version is to be given back; `over`: training is over."""
        if self._receiver is None or version <= self._given:
            return False
        if not over and version - self._given < self._receiver.settings.hand_back_every:
            return False
        return not self._is_worse(self._value(version))

    async def give(self, trainer: Trainer, version: int) -> None:
        """Have the trainer, which has loaded that version, write it, and put it in line. Raises TrainerDiedError."""
        if self._receiver is None:
            return
        path = (self._folder / f"model-{version}.pt").resolve()
        like = self._receiver.settings.model_file
        self._given = version  # also when it fails: the next one is tried some versions later
        try:
            await trainer.ask(p.Save(path=str(path), version=version, like="" if like is None else str(like)))
        except TrainerFailedError as exc:
            _drop(path)  # a part of it, where there was no room for the rest
            log_trouble("model-not-handed-back", self._job, exc, version=version)
            if exc.fatal:
                self._receiver = None
            return
        value = self._value(version)
        self._given_value = self._given_value if value is None else value
        self._waiting.put_nowait((path, version))

    async def run(self) -> None:
        """Hand over what was written, the newest only."""
        while True:
            await self._hand_over(*await self._waiting.get())
            self._waiting.task_done()

    async def finish(self) -> None:
        """Return when what was written is handed over, or has had time enough."""
        try:
            async with asyncio.timeout(LAST_ONE.total_seconds()):
                await self._waiting.join()
        except TimeoutError:
            log.warning("model-not-handed-back", job=self._job, text="the job is over; its last model was not taken")

    async def _hand_over(self, path: Path, version: int) -> None:
        try:
            if self._receiver is not None and self._waiting.empty() and await self._receiver.publish(path):
                log.info("version-handed-back", job=self._job, version=version)
        finally:
            _drop(path)

    def _value(self, version: int) -> float | None:
        return self._scored[1] if self._scored[0] == version else None

    def _is_worse(self, value: float | None) -> bool:
        if value is None or self._given_value is None:
            return False
        return value < self._given_value if self._better == "higher" else value > self._given_value


def _drop(path: Path) -> None:
    path.unlink(missing_ok=True)
