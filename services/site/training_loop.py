"""What the site trains, when: the newest version → trainer → outbox, again and again, until the job ends.

The loop does one duty at a time: make initial params, score a version, train. It wakes when something changed (a new
version, a receipt, a request) and says in `activity` what it does or waits for. A trainer that dies is replaced after a
pause; after MAX_FAILURES in a row, or when the task says that a person must act, the site gives the job up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import TypeVar

import structlog

from fedbus.core import messages as m
from fedbus.core.jobspec import JobSpec, SyncSpec
from fedbus.store.outbox import Outbox
from fedbus.training import protocol as p
from services.site.model_files import Held, ModelFiles
from services.site.settings import SiteSettings
from services.site.trainer import Trainer, TrainerDiedError, TrainerFailedError, start_trainer

MAX_FAILURES = 5
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

log = structlog.get_logger()
R = TypeVar("R", p.Opened, p.Made, p.Scored)
StartTrainer = Callable[..., AbstractAsyncContextManager[Trainer]]
Say = Callable[[m.ScoreAnswer | m.ResyncRequest | m.TrainerTrouble], Awaitable[None]]


class _Duty(Enum):
    STOP = auto()
    MAKE_INITIAL = auto()
    SCORE = auto()
    TRAIN = auto()


class TrainingLoop:
    """Training for one job. `on_update` is told of every update that was put into the outbox."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        *,
        settings: SiteSettings,
        files: ModelFiles,
        outbox: Outbox,
        say: Say,
        on_update: Callable[[m.UpdateId], None],
        start: StartTrainer = start_trainer,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._job = job
        self._spec = spec
        self._settings = settings
        self._files = files
        self._outbox = outbox
        self._say = say
        self._on_update = on_update
        self._start = start
        self._sleep = sleep
        self._wait_for_new_version = isinstance(spec.strategy, SyncSpec)
        self._changed = asyncio.Condition()
        self._trainer: Trainer | None = None
        self._layout_digest = ""
        self._initial_wanted = False
        self._score_wanted: int | None = None
        self._stopping = False
        self._trained_from = -1
        self._scored = -1
        self._failures = 0
        self._said = m.JobActivity(job=job, activity="starting", version=-1)

    # what others say to it

    async def wake(self) -> None:
        """Something changed: a version is held, a receipt came."""
        async with self._changed:
            self._changed.notify_all()

    async def make_initial(self) -> None:
        """Make the job's first params."""
        self._initial_wanted = True
        await self.wake()

    async def score(self, version: int) -> None:
        """Score `version` as soon as it is held; training that runs is cancelled."""
        self._score_wanted = version
        await self._interrupt()

    async def stop(self) -> None:
        """The job is over."""
        self._stopping = True
        await self._interrupt()

    async def _interrupt(self) -> None:
        if self._trainer is not None:
            await self._trainer.cancel()
        await self.wake()

    # what it says

    @property
    def activity(self) -> m.JobActivity:
        """What is being done right now."""
        version = -1 if self._files.held is None else self._files.held.version
        return dataclasses.replace(self._said, version=version)

    def _now(self, activity: str, *, detail: str = "") -> None:
        self._said = m.JobActivity(job=self._job, activity=activity, version=-1, detail=detail)

    def _on_progress(self, progress: p.Progress) -> None:
        self._said = dataclasses.replace(self._said, step=progress.step, steps=progress.steps)

    def _why_idle(self) -> str:
        if self._files.held is None:
            return "waiting for the model"
        if self._score_wanted is not None:
            return f"waiting for version {self._score_wanted}"
        if len(self._outbox.waiting) >= self._settings.max_in_flight:
            return "waiting for a receipt"
        return "waiting for the next version"

    # the loop

    async def run(self) -> None:
        """Serve until `stop`; returns early when the job cannot be trained here."""
        while not self._stopping:
            try:
                async with self._start(self._on_progress, threads=self._settings.threads) as trainer:
                    await self._serve(trainer)
            except (TrainerDiedError, TrainerFailedError) as exc:
                if self._stopping or await self._give_up(exc):
                    return
            finally:
                self._trainer = None

    async def _give_up(self, exc: TrainerDiedError | TrainerFailedError) -> bool:
        """Report the trouble and pause; True when trying again is useless."""
        self._failures += 1
        fatal = (isinstance(exc, TrainerFailedError) and exc.fatal) or self._failures >= MAX_FAILURES
        pause_s = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
        log.error(
            "trainer-trouble", job=self._job, error=str(exc), failures=self._failures, fatal=fatal, retry_s=pause_s
        )
        if isinstance(exc, TrainerFailedError):
            log.debug("trainer-traceback", job=self._job, traceback=exc.traceback)
        self._now("gave up" if fatal else "restarting the trainer", detail=str(exc))
        trouble = m.TrainerTrouble(
            site=self._settings.site_name, job=self._job, error=str(exc), restarts=self._failures, fatal=fatal
        )
        await self._say(trouble)
        if not fatal:
            await self._sleep(pause_s)
        return fatal

    async def _serve(self, trainer: Trainer) -> None:
        self._now("loading data")
        opened = await _expect(p.Opened, trainer, self._opening())
        log.info("trainer-ready", job=self._job, pid=trainer.pid, device=opened.device, numel=opened.numel)
        self._layout_digest = opened.layout_digest
        self._trainer = trainer
        loaded: Held | None = None
        while (duty := await self._next_duty()) is not _Duty.STOP:
            if duty is _Duty.MAKE_INITIAL:
                await self._make_initial(trainer)
                continue
            loaded = await self._load(trainer, loaded)
            if loaded is None:
                continue
            if self._score_wanted is not None:
                await self._score(trainer, loaded.version)
                # another one may have been asked for meanwhile
                self._score_wanted = None if self._score_wanted <= loaded.version else self._score_wanted
            else:
                await self._train(trainer, loaded)

    async def _next_duty(self) -> _Duty:
        async with self._changed:
            while (duty := self._duty()) is None:
                self._now(self._why_idle())
                await self._changed.wait()
        return duty

    def _duty(self) -> _Duty | None:
        held = self._files.held
        if self._stopping:
            return _Duty.STOP
        if self._initial_wanted:
            return _Duty.MAKE_INITIAL
        if held is None:
            return None
        if self._score_wanted is not None:
            return _Duty.SCORE if held.version >= self._score_wanted else None
        fresh = held.version > self._trained_from or not self._wait_for_new_version
        return _Duty.TRAIN if fresh and len(self._outbox.waiting) < self._settings.max_in_flight else None

    def _opening(self) -> p.Open:
        spec, settings = self._spec.to_dict(), self._settings
        return p.Open(
            job=self._job,
            task=spec["task"],
            task_config=spec["task_config"],
            seed=spec["seed"],
            site=settings.site_name,
            data=str(settings.site_data.resolve()),
            local=spec["local"],
            up=spec["codec"]["up"],
            chunk_bytes=spec["chunk_bytes"],
            device=settings.device,
            threads=settings.threads,
            slowdown=settings.slowdown,
            step_delay_s=settings.step_delay_s,
        )

    async def _make_initial(self, trainer: Trainer) -> None:
        self._now("making initial params")
        update_id = self._outbox.next_id()
        made = await _expect(p.Made, trainer, p.MakeInitial(path=str(self._outbox.frames_path(update_id))))
        self._put(
            m.UpdateManifest(
                job=self._job,
                update_id=str(update_id),
                kind="initial",
                base_version=0,
                num_examples=1,
                layout_digest=self._layout_digest,
                frames=len(made.frame_sizes),
                body_bytes=sum(made.frame_sizes),
                layout=made.layout,
            ),
            made.frame_sizes,
        )
        self._initial_wanted = False  # only now: a trainer that died over it is asked again

    async def _load(self, trainer: Trainer, loaded: Held | None) -> Held | None:
        """Bring the trainer to the newest version; None when a snapshot had to be asked for."""
        held = self._files.held
        if held is None or (loaded is not None and loaded.version == held.version):
            return loaded
        self._files.discard_retired()
        self._now(f"loading version {held.version}")
        reply = await trainer.ask(_load_command(held, since=None if loaded is None else loaded.version))
        match reply:
            case p.Loaded():
                return held
            case p.LoadFailed(reason=reason):
                # the trainer is empty now; a fresher snapshot may have come meanwhile, otherwise ask for one
                if loaded is None and self._files.held is held:
                    self._files.drop_held()
                    log.warning("resync", job=self._job, reason=reason)
                    await self._say(m.ResyncRequest(site=self._settings.site_name, job=self._job, reason=reason))
                return None
        raise TrainerDiedError(f"the trainer answered {type(reply).__name__} to Load")

    async def _score(self, trainer: Trainer, version: int) -> None:
        self._now("scoring")
        scored = await _expect(p.Scored, trainer, p.Evaluate(version=version))
        self._scored = version
        await self._say(
            m.ScoreAnswer(
                site=self._settings.site_name,
                job=self._job,
                version=version,
                metrics=_finite(scored.metrics),
                num_examples=scored.num_examples,
            )
        )

    async def _train(self, trainer: Trainer, base: Held) -> None:
        if self._spec.local.evaluate and base.version > self._scored:
            await self._score(trainer, base.version)
        if self._stopping or self._score_wanted is not None:
            return
        self._now("training")
        update_id = self._outbox.next_id()
        seed = training_seed(self._spec.seed, update_id)
        reply = await trainer.ask(p.Train(path=str(self._outbox.frames_path(update_id)), seed=seed))
        match reply:
            case p.Cancelled():
                return
            case p.Trained():
                self._failures = 0
                self._trained_from = base.version
                self._put(self._manifest(update_id, reply), reply.frame_sizes)
            case _:
                raise TrainerDiedError(f"the trainer answered {type(reply).__name__} to Train")

    def _manifest(self, update_id: m.UpdateId, trained: p.Trained) -> m.UpdateManifest:
        return m.UpdateManifest(
            job=self._job,
            update_id=str(update_id),
            kind="delta",
            base_version=trained.base_version,
            num_examples=trained.num_examples,
            layout_digest=self._layout_digest,
            frames=len(trained.frame_sizes),
            body_bytes=sum(trained.frame_sizes),
            steps=trained.steps,
            train_s=trained.seconds,
            metrics=_finite(trained.metrics),
        )

    def _put(self, manifest: m.UpdateManifest, frame_sizes: tuple[int, ...]) -> None:
        update_id = m.UpdateId.parse(manifest.update_id)
        self._outbox.commit(update_id, dataclasses.asdict(manifest), frame_sizes)
        self._on_update(update_id)


def _load_command(held: Held, *, since: int | None) -> p.Load:
    """Only the deltas that a trainer at version `since` lacks, or the snapshot and all deltas after it."""
    if since is not None and since >= held.snapshot_version:
        deltas = tuple(str(d.path) for d in held.deltas if d.version > since)
        return p.Load(version=held.version, digest=held.digest, deltas=deltas)
    return p.Load(
        version=held.version,
        digest=held.digest,
        deltas=tuple(str(d.path) for d in held.deltas),
        snapshot=str(held.snapshot),
        layout=held.layout,
    )


async def _expect(reply_type: type[R], trainer: Trainer, command: p.Command) -> R:
    reply = await trainer.ask(command)
    if not isinstance(reply, reply_type):
        raise TrainerDiedError(f"the trainer answered {type(reply).__name__} to {type(command).__name__}")
    return reply


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """NaN and infinity are no JSON; a metric that diverged is left out."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def training_seed(job_seed: int, update_id: m.UpdateId) -> int:
    """Seed of one training: the same for the same job, site and sequence, another for every other."""
    text = f"{job_seed}/{update_id.site}/{update_id.sequence}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
