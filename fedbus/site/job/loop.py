"""What the site trains, when: the newest version → trainer → outbox, again and again, until the job ends.

The loop does one duty at a time: make initial params, score a version, train. It wakes when something changed (a new
version, a receipt, a request) and says in `activity` what it does or waits for.

A trainer that dies or fails is replaced after a pause that grows: what may pass (a folder that is mounted later, a GPU
that others use) is tried again for the site's `patience_s`, and at once when a person says so (`try_now`). Then, or
when fedbus itself knows that trying again cannot help, the site gives the job up. What ends because we cancelled it is
no failure. A score that cannot be made is said at once and costs nothing else; what others are told of an error is
`Sayable`, its text stands in the log here. No more jobs have a trainer at once than the site has `places`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import structlog

from fedbus.core.job.duties import Duty, Standing, Stop, Wait, next_duty
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DiskFullError
from fedbus.runtime.metrics import RESTARTS
from fedbus.runtime.telemetry import Telemetry
from fedbus.runtime.tracing import APPLY
from fedbus.site.job import assignment
from fedbus.site.job.attempts import Attempts
from fedbus.site.job.data_duty import DataDuty
from fedbus.site.job.hand_back import HandBack
from fedbus.site.job.local_trainings import LocalTrainings
from fedbus.site.job.model_files import Held, ModelFiles
from fedbus.site.job.new_labels import NewLabels
from fedbus.site.job.score_duty import ScoreDuty
from fedbus.site.job.scoring import Scoring
from fedbus.site.job.trainer import Trainer, reply_of, start_trainer
from fedbus.site.labels import Labels
from fedbus.site.places import Places, Waiting, devices_of, more_places, most_devices
from fedbus.site.rules import SiteRules
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerDiedError, TrainerFailedError
from fedbus.site.trouble_log import log_notes, log_trouble
from fedbus.store.outbox import Outbox
from fedbus.store.residuals import Source
from fedbus.training import protocol as p
from fedbus.training.sayable import Sayable, sayable

NO_ROOM_PAUSE_S = 30.0
STOP_GRACE = timedelta(seconds=10)

log = structlog.get_logger()
StartTrainer = Callable[..., AbstractAsyncContextManager[Trainer]]
Say = Callable[
    [m.OfferAnswer | m.ScoreAnswer | m.StatisticsAnswer | m.ResyncRequest | m.TrainerTrouble], Awaitable[None]
]
STILL_QUEUED = Sayable("the site trains other jobs, this one is still queued")
# Two jobs that wait for each other's sites do not give way at the same moment again and again.
YIELD_AFTER_S = 20.0, 40.0
NO_ROOM = Sayable("there is no room in the state folder of the site")


class TrainingLoop:
    """Training for one job of `submitter`, when it has one of the site's `places`.

    `on_update` is told of every update that was put into the outbox.
    """

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
        places: Places | None = None,
        submitter: str = "",
        labels: Labels | None = None,
        hand_back: HandBack | None = None,
        rules: SiteRules | None = None,
        telemetry: Telemetry | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        stop_grace: timedelta = STOP_GRACE,
    ) -> None:
        self._job = job
        self._spec = spec
        self._settings = settings
        self._files = files
        self._outbox = outbox
        self._say = say
        self._on_update = on_update
        self._start = start
        self._places = places or Places(1)
        self._submitter = submitter
        self._labels = NewLabels(labels, spec.task)
        self._hand_back = hand_back or HandBack(job, spec, folder=Path(), receiver=None)
        self._rules = rules
        self._telemetry = telemetry or Telemetry()
        self._withdrawn: Sayable | None = None
        self._waiting: Waiting | None = None
        self._yielded = False
        self._attempts = Attempts(patience_s=settings.patience_s, sleep=sleep)
        self._stop_grace_s = stop_grace.total_seconds()
        self._trainings = (
            LocalTrainings(job, spec, settings=settings, outbox=outbox, put=self._put, telemetry=self._telemetry)
            if isinstance(spec, TrainingSpec)
            else None
        )
        """None: the job trains nothing."""
        self._changed = asyncio.Condition()
        self._trainer: Trainer | None = None
        self._device = ""
        self._layout_digest = ""
        self._data = DataDuty(job, spec, settings=settings, say=say, now=lambda: self._now(Activity.EXAMINING))
        self._initial_wanted: m.InitialParamsRequest | None = None
        self._score = ScoreDuty(settings.score_limit_s)
        self._scoring = Scoring(
            job,
            self._score,
            settings=settings,
            trainings=self._trainings,
            hand_back=self._hand_back,
            say=say,
            is_over=lambda: self._stopping,
            on_settled=self._score_is_settled,
        )
        self._limit: asyncio.Timeout | None = None
        self._training_is_over = self._trainings is None
        self._stopping = self._finished = False
        self._said = assignment.activity(job, Activity.STARTING)

    # what others say to it

    async def wake(self) -> None:
        """Something changed: a version is held, a receipt came."""
        async with self._changed:
            self._changed.notify_all()

    @property
    def layout_digest(self) -> str:
        """Of the params that the task makes here; empty until it is open."""
        return self._layout_digest

    async def make_initial(self, request: m.InitialParamsRequest) -> None:
        """Make the job's first params, or only say their layout."""
        self._initial_wanted = request
        await self.wake()

    async def examine(self, request: m.StatisticsRequest) -> None:
        """Compute statistics of the site's data, before anything else; a training that runs is cancelled for it."""
        self._data.wanted = request
        self._attempts.end_pause()
        await self._interrupt()

    async def score(self, request: m.ScoreRequest) -> None:
        """Score a version as soon as it is held; training that runs is cancelled, and none begins any more.

        What is not done in the site's `score_limit_s` is given up: the trainer is killed, and that is said.
        """
        self._score.ask(request, now=asyncio.get_running_loop().time())
        self._training_is_over = True
        if self._trainings is not None:
            self._end_pause()
        else:
            self._attempts.end_pause()  # in a job that only scores, a site that waits for its place waits on
        self._end_by(self._score.by)
        await self._interrupt()

    def set_steps(self, steps: int) -> None:
        """Make so many local steps in every training that begins from now on, in a job that is time-boxed."""
        if self._trainings is not None:
            self._trainings.set_steps(steps)

    async def rebase(self, oldest: int) -> None:
        """Train from versions from `oldest` on only; training from an older one that runs is cancelled."""
        outdated = self._trainings is not None and self._trainings.rebase(oldest)
        if outdated and self._trainer is not None:
            await self._trainer.cancel()
        await self.wake()

    def try_now(self) -> None:
        """A person has changed something: do not wait for the next try, and have patience anew."""
        self._attempts.succeeded()
        self._end_pause()

    async def labels_came(self) -> None:
        """The site's data source has brought labels: what failed for want of them is tried at once."""
        self._attempts.succeeded()
        self._attempts.end_pause()
        await self.wake()

    async def stop(self, *, finished: bool = False) -> None:
        """The job is over; a task that does not come back to hear of it loses its trainer.

        Of one that has finished well the model may be given back, see `hand_back`.
        """
        self._stopping, self._finished = True, finished
        self._end_pause()
        self._end_by(asyncio.get_running_loop().time() + self._stop_grace_s)
        await self._interrupt()

    async def withdraw(self, why: Sayable) -> None:
        """The site's policy does not allow the job any more: the trainer ends at once."""
        log.warning("withdrawn", job=self._job, text=why)
        self._stopping, self._withdrawn = True, why
        self._end_pause()
        self._end_by(asyncio.get_running_loop().time())
        await self.wake()

    async def rules_changed(self) -> None:
        """The site's hours have come or are over, or a new day has begun."""
        if self._pause is None:
            self._end_by(self._score.by)
            return await self.wake()
        self._end_pause()
        self._end_by(asyncio.get_running_loop().time() + self._stop_grace_s)
        return await self._interrupt()

    @property
    def _pause(self) -> Sayable | None:
        """Why the site's policy lets it do nothing for this job now; None when it may do what is to be done."""
        if self._rules is None:
            return None
        asked = self._score.wanted is not None or self._initial_wanted is not None or self._data.wanted is not None
        return self._rules.pause or (None if asked or self._training_is_over else self._rules.training_pause(self._job))

    def _end_pause(self) -> None:
        self._attempts.end_pause()
        if self._waiting is not None and not self._waiting.turn.done():
            self._waiting.turn.cancel()

    def _end_by(self, when: float | None) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(when)

    async def _interrupt(self) -> None:
        if self._trainer is not None:
            await self._trainer.cancel()
        await self.wake()

    # what it says

    @property
    def activity(self) -> m.JobActivity:
        """What is being done right now."""
        version = -1 if self._files.held is None else self._files.held.version
        said = self._said
        if said.activity is Activity.QUEUED and (before := self._places.before(self._job)):
            said = assignment.activity(self._job, Activity.QUEUED, detail=Sayable(f"{before} before it"))
        return dataclasses.replace(said, version=version, device=self._device, new_labels=self._labels.count)

    def _now(self, activity: Activity, *, detail: Sayable | None = None) -> None:
        self._said = assignment.activity(self._job, activity, detail=detail)

    def _on_progress(self, progress: p.Progress) -> None:
        self._said = dataclasses.replace(
            self._said,
            step=progress.step,
            steps=progress.steps,
            memory_used_bytes=progress.memory_used_bytes,
            memory_bytes=progress.memory_bytes,
        )

    # the loop

    async def run(self) -> None:
        """Serve until `stop`; returns early when the job cannot be trained here, or is not allowed any more."""
        await self._work()
        if self._withdrawn is not None:
            await self._say(assignment.declining(self._job, self._settings.site_name, self._withdrawn))

    async def _work(self) -> None:
        while not await self._nothing_to_do():
            try:
                await self._with_a_trainer()
                if self._data.refused:
                    return
            except (TrainerDiedError, TrainerFailedError) as exc:
                if self._stopping or await self._give_up(exc):
                    return
            except DiskFullError as exc:
                await self._wait_for_room(exc)
            finally:
                self._trainer, self._device = None, ""

    async def _nothing_to_do(self) -> bool:
        """Wait while training is over and no score is asked for, or there are no data; True when the job is over."""
        async with self._changed:
            while not self._stopping and (reason := self._why_idle) is not None:
                self._wait_idle(reason)
                await self._changed.wait()
        return self._stopping

    def _wait_idle(self, reason: Activity) -> None:
        why = self._pause if reason is Activity.PAUSED else None
        if why is not None and self._said.activity is not reason:
            log.info("paused", job=self._job, text=why)
        self._now(reason, detail=why)

    @property
    def _why_idle(self) -> Activity | None:
        if self._pause is not None and not (self._training_is_over and self._is_idle):
            return Activity.PAUSED
        if self._labels.waited_for and self._score.wanted is None:
            return Activity.WAITING_FOR_LABELS
        return Activity.WAITING_FOR_END if self._training_is_over and self._is_idle else None

    @property
    def _is_idle(self) -> bool:
        """Whether nothing was asked for; how the task's params are laid out is always said, and that needs it open."""
        asked = self._score.wanted is not None or self._initial_wanted is not None or self._data.wanted is not None
        return not asked and (bool(self._layout_digest) or self._data.is_all)

    async def _with_a_trainer(self) -> None:
        """Wait for a place, start a trainer there and serve the job with it."""
        self._waiting = self._places.ask(
            self._job, priority=self._spec.priority, submitter=self._submitter, yielded=self._yielded
        )
        try:
            if await self._has_its_turn(self._waiting):
                self._yielded = False
                self._places.take_more(self._waiting, more_places(self._settings.device, self._most_devices))
                await self._in_place(self._waiting)
                while self._places.too_many(self._waiting) and not self._stopping:
                    self._places.give_back(self._waiting)
                    log.info("devices-given-back", job=self._job, text="other jobs wait for a place")
                    await self._in_place(self._waiting)
        finally:
            self._places.leave(self._waiting)
            self._waiting = None

    async def _has_its_turn(self, waiting: Waiting) -> bool:
        """Wait for the turn; False when something else is to be done first."""
        if not waiting.turn.done():
            if self._score.wanted is not None and self._trainings is not None:
                await self._scoring.give_up(STILL_QUEUED)
                return False
            self._now(Activity.QUEUED)
            log.info("queued", job=self._job, before=self._places.before(self._job))
            await asyncio.wait({waiting.turn})
        return not waiting.turn.cancelled()

    @property
    def _most_devices(self) -> int:
        if self._trainings is None:
            return 1
        settings = self._settings
        return most_devices(settings.device, ranks=settings.ranks, batch_size=self._trainings.spec.local.batch_size)

    async def _in_place(self, place: Waiting) -> None:
        limit: asyncio.Timeout | None = None
        try:
            async with asyncio.timeout_at(self._score.by) as limit:
                await self._limited(place, limit)
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            if self._pause is not None:
                return
            if not self._stopping:
                await self._scoring.give_up(Sayable(f"not scored within {self._score.limit_s:g} s"))

    async def _limited(self, place: Waiting, limit: asyncio.Timeout) -> None:
        """Serve with a trainer. Others may move the limit meanwhile, and never one that is over."""
        self._limit = limit
        try:
            with structlog.contextvars.bound_contextvars(job=self._job):  # for the lines of what the task prints
                async with self._start(self._on_progress, threads=self._settings.threads) as trainer:
                    await self._serve(trainer, place)
        finally:
            self._limit = None

    async def _wait_for_room(self, exc: DiskFullError) -> None:
        """The outbox cannot be written. Whoever makes room need not restart anything."""
        log.error("disk-full", job=self._job, error=str(exc), retry_s=NO_ROOM_PAUSE_S)
        self._now(Activity.WAITING_FOR_ROOM, detail=NO_ROOM)
        await self._attempts.pause(NO_ROOM_PAUSE_S)

    async def _give_up(self, exc: TrainerDiedError | TrainerFailedError) -> bool:
        """Report the trouble and pause; True when the site tries no more."""
        if isinstance(exc, TrainerDiedError) and exc.after_cancel:
            log.warning("trainer-ended", job=self._job, text=f"{exc}; another one is started")
            return False
        final = isinstance(exc, TrainerFailedError) and exc.fatal
        failed = self._attempts.failed(final=final, now=asyncio.get_running_loop().time())
        fatal, restarts = failed.fatal, failed.failures
        self._telemetry.metrics.add(RESTARTS, job_id=self._job)
        log_trouble("trainer-trouble", self._job, exc, failures=restarts, fatal=fatal, retry_s=failed.pause_s)
        self._now(Activity.GAVE_UP if fatal else Activity.RESTARTING, detail=exc.said)
        await self._say(
            assignment.trouble(self._job, self._settings.site_name, exc.said, restarts=restarts, fatal=fatal)
        )
        if not fatal:
            await self._attempts.pause(failed.pause_s)
        return fatal

    async def _open(self, trainer: Trainer, place: Waiting) -> None:
        """Have the trainer load the task and the data, or load them anew."""
        self._now(Activity.LOADING_DATA)
        held = (place.turn.result(), *place.more)
        devices = devices_of(self._settings.device, held, self._places.count, most=self._most_devices)
        command = assignment.opening(self._job, self._spec, self._settings, devices=devices)
        with self._labels.opening():
            opened = await reply_of(p.Opened, trainer, command)
        log.info("trainer-ready", job=self._job, pid=trainer.pid, device=opened.device, numel=opened.numel)
        if self._layout_digest != opened.layout_digest:
            self._layout_digest = opened.layout_digest
            await self._say(assignment.accepting(self._job, self._settings.site_name, opened.layout_digest))
        self._trainer, self._device = trainer, opened.device

    async def _serve(self, trainer: Trainer, place: Waiting) -> None:
        if self._pause is not None:
            return
        await self._data.see_to(trainer)
        if self._data.is_all or self._data.refused:
            return
        await self._open(trainer, place)
        loaded: Held | None = None
        while not isinstance(await self._next_duty(place), Stop):
            if self._data.wanted is not None:
                await self._data.see_to(trainer)
                continue
            if self._initial_wanted is not None:
                await self._make_initial(trainer, self._initial_wanted)
                continue
            if self._labels.wants_reopening and self._score.wanted is None:
                loaded = None
                await self._open(trainer, place)
            loaded = await self._load(trainer, loaded)
            if loaded is None:
                continue
            if self._score.wanted is not None:  # perhaps asked for while the version was loaded
                await self._make_score(trainer, loaded.version)
            elif self._trainings is not None:
                await self._train(trainer, loaded, self._trainings)
        if self._finished and loaded is not None and self._hand_back.is_due(loaded.version, over=True):
            await self._hand_back.give(trainer, loaded.version)

    async def _next_duty(self, place: Waiting) -> Duty:
        """What there is to do, once there is something; Stop as well when others wait for a place that it has."""
        while not self._places.too_many(place) and self._pause is None:
            limit_s = random.uniform(*YIELD_AFTER_S) if self._files.held is None or place.more else None
            try:
                async with asyncio.timeout(limit_s), self._changed:
                    while isinstance(duty := next_duty(self._standing), Wait) and self._pause is None:
                        self._now(duty.activity, detail=_number(duty.version))
                        await self._changed.wait()
                if self._pause is None:
                    return duty
            except TimeoutError:
                if self._places.wanted and self._files.held is None:
                    log.info("place-yielded", job=self._job, text="no version yet; other jobs wait for a place")
                    self._yielded = True
                    return Stop()
        return Stop()

    @property
    def _standing(self) -> Standing:
        held, trainings = self._files.held, self._trainings
        return Standing(
            held=None if held is None else held.version,
            stopping=self._stopping,
            statistics_asked=self._data.wanted is not None,
            only_checks=self._data.is_all,
            initial_asked=self._initial_wanted is not None,
            score_asked=self._score.wanted,
            training_is_over=self._training_is_over,
            oldest_base=0 if trainings is None else trainings.oldest_base,
            trained_from=-1 if trainings is None else trainings.trained_from,
            waits_for_new=trainings is not None and trainings.waits_for_new,
            unsettled=len(self._outbox.waiting),
            most_unsettled=self._settings.max_in_flight,
        )

    async def _make_initial(self, trainer: Trainer, wanted: m.InitialParamsRequest) -> None:
        self._now(Activity.MAKING_INITIAL)
        update_id = self._outbox.next_id()
        command = p.MakeInitial(path=str(self._outbox.frames_path(update_id)), layout_only=wanted.layout_only)
        made = await reply_of(p.Made, trainer, command)
        self._put(assignment.initial_manifest(self._job, update_id, made), made.frame_sizes)
        self._initial_wanted = None  # only now: a trainer that died over it is asked again

    async def _load(self, trainer: Trainer, loaded: Held | None) -> Held | None:
        """Bring the trainer to the newest version; None when a snapshot had to be asked for."""
        held = self._files.held
        if held is None or (loaded is not None and loaded.version == held.version):
            return loaded
        self._files.discard_retired()
        self._now(Activity.LOADING, detail=_number(held.version))
        span = self._telemetry.tracing.begin(APPLY, f"{self._job}/{held.version}")
        reply = await trainer.ask(assignment.load(held, since=None if loaded is None else loaded.version))
        match reply:
            case p.Loaded():
                span.end(version=held.version)
                return held
            case p.LoadFailed(reason=reason, detail=detail):
                # the trainer is empty now; a fresher snapshot may have come meanwhile, otherwise ask for one
                if loaded is None and self._files.held is held:
                    self._files.drop_held()
                    log.warning("resync", job=self._job, reason=reason, detail=detail)
                    await self._say(assignment.resync(self._job, self._settings.site_name, sayable(reason)))
                return None
        raise TrainerDiedError(f"the trainer answered {type(reply).__name__} to Load")

    async def _make_score(self, trainer: Trainer, version: int) -> None:
        self._now(Activity.SCORING)
        await self._scoring.make(trainer, version, layout_digest=self._layout_digest)

    def _score_is_settled(self) -> None:
        if not self._stopping:
            self._end_by(self._score.by)

    async def _train(self, trainer: Trainer, base: Held, trainings: LocalTrainings) -> None:
        if trainings.spec.local.evaluate and base.version > self._score.newest:
            await self._make_score(trainer, base.version)
        if self._stopping or self._score.wanted is not None or base.version < trainings.oldest_base:
            return
        if self._hand_back.is_due(base.version):
            await self._hand_back.give(trainer, base.version)
        if self._rules is not None:
            self._rules.charge_steps(trainings.next_steps)
        self._now(Activity.TRAINING)
        trained = await trainings.train(trainer, base, layout_digest=self._layout_digest)
        if trained is not None:
            self._attempts.succeeded()
            self._labels.trained()
            log_notes(self._job, trained.notes)

    def _put(self, manifest: m.UpdateManifest, frame_sizes: tuple[int, ...], residual: Source | None = None) -> None:
        update_id = m.UpdateId.parse(manifest.update_id)
        self._outbox.commit(update_id, manifest, frame_sizes, residual=residual)
        self._on_update(update_id)


def _number(version: int | None) -> Sayable | None:
    return None if version is None else Sayable(str(version))
