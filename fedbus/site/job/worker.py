"""One accepted job at a site: three tasks that go on until the job ends.

    follow   chunks and manifests of the model log → files; each new version wakes the training loop
    train    see `loop`
    upload   outbox → broker, confirmed; entries stay until their receipt, see `uploads`

Stop order: the trainer is killed first (a half-trained delta is worth nothing), then uploads end; what is in the
outbox is sent again when the site comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta

import structlog

from fedbus.bus import topology as t
from fedbus.bus.post import ControlMessage, Post
from fedbus.bus.stream import Record, Start, StreamReader
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.spec.head import JobSpec
from fedbus.errors import (
    DecodeError,
    DiskFullError,
    LoginError,
    NoSuchQueueError,
    ProtocolError,
)
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.site.door import Lane
from fedbus.site.job import assignment, model_wanted
from fedbus.site.job.hand_back import HandBack, Receiver
from fedbus.site.job.log_place import before_snapshot
from fedbus.site.job.loop import Say, StartTrainer, TrainingLoop
from fedbus.site.job.model_files import ModelFiles, Step
from fedbus.site.job.model_log import ModelLog, SealedLog
from fedbus.site.job.model_wanted import ModelWanted
from fedbus.site.job.put_away import job_folder, write_spec
from fedbus.site.job.trainer import start_trainer
from fedbus.site.job.uploads import Uploads
from fedbus.site.labels import Labels
from fedbus.site.places import Places
from fedbus.site.rules import SiteRules
from fedbus.site.settings import SiteSettings
from fedbus.store.files import make_folder
from fedbus.store.outbox import Outbox
from fedbus.training.sayable import Sayable

NO_ROOM_PAUSE_S = 2.0

log = structlog.get_logger()


class JobWorker:
    """State of one job at the site. `reader` reads the stream of a name, `say` sends a message to the aggregator."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        *,
        settings: SiteSettings,
        reader: Callable[[str], StreamReader],
        post: Post,
        lane: Lane,
        say: Say,
        start: StartTrainer = start_trainer,
        places: Places | None = None,
        submitter: str = "",
        labels: Labels | None = None,
        receiver: Receiver | None = None,
        rules: SiteRules | None = None,
        reached: Reached = nothing,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: timedelta = model_wanted.FIRST,
    ) -> None:
        self._job = job
        self._site = settings.site_name
        self._reader_of = reader
        self._post = post
        self._say = say
        self._reached = reached
        self._folder = make_folder(job_folder(settings, job))
        write_spec(self._folder, spec)
        self._outbox = Outbox(self._folder / "outbox", self._site)
        self._files = ModelFiles(self._folder / "model", chained=post.guard is not None)
        self._log = self._model_log(post)
        self._uploads = Uploads(
            job, outbox=self._outbox, lane=lane, on_withheld=self.withdraw, reached=reached, sleep=sleep
        )
        self._started: asyncio.Future[StreamReader] = asyncio.get_running_loop().create_future()
        self._trouble: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Has the error that a control message has met; it ends `run`, and not the daemon that hands messages out."""
        self._wanted = ModelWanted(
            job, holds=lambda: self._files.held is not None, ask=self._ask_for_snapshot, first=patience
        )
        self._aggregator = ""
        self.ended = False
        self._hand_back = HandBack(job, spec, folder=self._folder, receiver=receiver)
        self._loop = TrainingLoop(
            job,
            spec,
            settings=settings,
            files=self._files,
            outbox=self._outbox,
            say=say,
            on_update=self._uploads.committed,
            start=start,
            places=places,
            submitter=submitter,
            labels=labels,
            hand_back=self._hand_back,
            rules=rules,
        )

    @property
    def layout_digest(self) -> str:
        """Of the params that the task makes here; empty until it is open."""
        return self._loop.layout_digest

    @property
    def activity(self) -> m.JobActivity:
        """What the site does for this job right now."""
        activity, wanted = self._loop.activity, self._wanted.says
        return activity if wanted is None else replace(activity, detail=wanted)

    def try_now(self) -> None:
        """A person has changed something: what waits for its next try is tried at once."""
        self._loop.try_now()

    async def withdraw(self, why: Sayable) -> None:
        """The site's policy does not allow the job any more."""
        await self._loop.withdraw(why)

    async def rules_changed(self) -> None:
        """The site's hours have come or are over, or a new day has begun."""
        await self._loop.rules_changed()

    async def labels_came(self) -> None:
        """The site's data source has brought labels."""
        await self._loop.labels_came()

    async def run(self) -> None:
        """Work until the job ends, or until it cannot be trained here; raises what a control message has met."""
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._follow(), name=f"follow {self._job}"),
                group.create_task(self._uploads.run(), name=f"upload {self._job}"),
                group.create_task(self._watch(), name=f"watch {self._job}"),
                group.create_task(self._hand_back.run(), name=f"hand back {self._job}"),
                group.create_task(self._until_trouble(), name=f"trouble of {self._job}"),
            ]
            await self._loop.run()
            await self._hand_back.finish()
            for task in helpers:
                task.cancel()

    async def _until_trouble(self) -> None:
        await self._trouble

    def fail(self, exc: Exception) -> None:
        """A control message has met an error: the work for this job ends with it."""
        log.warning("control-message", job=self._job, error=str(exc))
        if not self._trouble.done():
            self._trouble.set_exception(exc)

    async def on_control(self, message: ControlMessage) -> None:
        """Take a control message about this job; whoever hands it out gives an error that it meets to `fail`."""
        match message:
            case m.JobStarted(session=session):
                self._start(message)
                if session != self._aggregator:
                    self._aggregator = session
                    self._uploads.send_again()
            case m.InitialParamsRequest():
                await self._loop.make_initial(message)
            case m.Receipt():
                await self._receipt(message)
            case m.StepBudget(steps=steps):
                log.info("step-budget", job=self._job, steps=steps)
                self._loop.set_steps(steps)
            case m.ResendRequest(update_id=update_id):
                self._uploads.send_all_of(m.UpdateId.parse(update_id))
            case m.ScoreRequest():
                await self._loop.score(message)
            case m.StatisticsRequest():
                await self._loop.examine(message)
            case m.JobEnded(state=state, reason=reason):
                if not self.ended:
                    log.info("job-ended", job=self._job, state=str(state), reason=reason)
                self.ended = True
                await self._loop.stop(finished=state is m.JobState.FINISHED)
            case m.RollCall() | m.JobOffer():
                pass

    def _model_log(self, post: Post) -> ModelLog:
        if post.guard is None:
            return ModelLog(self._job, post)
        return SealedLog(self._job, post, post.guard, folder=self._folder, ask=self._ask_for_snapshot)

    def _start(self, started: m.JobStarted) -> None:
        """Follow the model log that is named; "" is how earlier releases say the one of the job's name."""
        stream = started.log or t.models_stream(self._job)
        if not t.is_models_stream(stream, self._job):
            raise ProtocolError(f"the job's start names {stream!r}, which is no model log of job {self._job}")
        self._log.take_keys(started.keys)
        if not self._started.done():
            self._files.show_from(started.version)
            self._started.set_result(self._reader_of(stream))

    async def _receipt(self, receipt: m.Receipt) -> None:
        self._reached(Point.SITE_RECEIPT)
        log.debug("update-receipt", job=self._job, update=receipt.update_id, outcome=str(receipt.outcome))
        refused = receipt.outcome is m.Outcome.REFUSED
        if not self._outbox.remove(m.UpdateId.parse(receipt.update_id), refused=refused):
            return
        if refused:
            log.warning("update-refused", job=self._job, update=receipt.update_id, reason=receipt.reason)
        if receipt.rebase is not None:
            log.warning("rebase", job=self._job, update=receipt.update_id, from_version=receipt.rebase)
            await self._loop.rebase(receipt.rebase)
        await self._loop.wake()

    async def _follow(self) -> None:
        reader = await self._started
        try:
            async for record in reader.follow(await self._where_to_begin(reader)):
                try:
                    message = await self._log.read(record.envelope)
                    if message is not None:
                        await self._when_there_is_room(message, record.offset)
                except ProtocolError as exc:
                    log.warning("model-log-record", job=self._job, offset=record.offset, error=str(exc))
        except NoSuchQueueError:
            log.info("model-log-gone", job=self._job, text="the job has ended; waiting to be told how")
        except LoginError as exc:  # that of this job's log alone
            raise ProtocolError(f"the broker lets this site not read the model log of job {self._job}: {exc}") from exc

    async def _watch(self) -> None:
        await self._started
        await self._wanted.watch()

    async def _ask_for_snapshot(self, reason: Sayable) -> None:
        await self._say(assignment.resync(self._job, self._site, reason))

    async def _where_to_begin(self, reader: StreamReader) -> Start:
        """After what an earlier process held, or before the newest snapshot: whichever is later in the log.

        What comes after the later one is a part of what comes after the other, so that is what costs fewer bytes.
        """
        newest = await reader.newest()
        manifest = None if newest is None else await self._manifest(newest)
        if newest is None or not isinstance(manifest, m.VersionManifest) or manifest.snapshot_version < 0:
            self._files.forget()
            return "first"
        kept = self._files.kept
        if (
            kept is not None
            and kept.offset <= newest.offset
            and manifest.snapshot_version <= kept.held.version <= manifest.version
        ):
            log.info("model-resumed", job=self._job, version=kept.held.version, newest=manifest.version)
            self._files.resume(kept, newest=manifest.version)
            await self._loop.wake()
            return kept.offset + 1
        self._files.forget()
        self._files.skip_below(manifest.snapshot_version)
        return await before_snapshot(reader, manifest, post=self._post, offset=newest.offset)

    async def _manifest(self, newest: Record) -> wire.Message | None:
        try:
            return await self._log.read(newest.envelope)
        except ProtocolError as exc:
            log.warning("model-log-record", job=self._job, offset=newest.offset, error=str(exc))
            return None

    async def _when_there_is_room(self, message: wire.Message, offset: int) -> None:
        """A full disk is waited out: the record is not acknowledged meanwhile."""
        while True:
            try:
                return await self._take(message, offset)
            except DiskFullError as exc:
                log.error("disk-full", job=self._job, error=str(exc), retry_s=NO_ROOM_PAUSE_S)
                await asyncio.sleep(NO_ROOM_PAUSE_S)

    async def _take(self, message: wire.Message, offset: int) -> None:
        self._wanted.record_came()
        match message:
            case m.Chunk():
                self._files.chunk(message)
                self._reached(Point.SITE_VERSION)
            case m.VersionManifest():
                before = self._files.held
                step = self._files.manifest(message)
                if step is Step.NEW_VERSION:
                    self._files.remember(offset)
                    log.info("version-held", job=self._job, version=message.version)
                elif step is Step.GAP:
                    reason = Sayable(self._files.why or f"version {message.version} does not follow what is held")
                    log.warning("resync", job=self._job, reason=reason)
                    await self._ask_for_snapshot(reason)
                for receipt in message.receipts:
                    if receipt.update_id.partition(":")[0] == self._site:
                        await self._receipt(receipt)
                if step is Step.NEW_VERSION and before is not None and message.version > before.version + 1:
                    self._uploads.send_again()  # the versions in between are lost, and the receipts they named
                await self._loop.wake()
            case _:
                raise DecodeError(f"message {type(message).__name__} does not belong in a model log")


def left_over(settings: SiteSettings, *, but: Collection[str]) -> list[str]:
    """Jobs of which there are files here, `but` those that are being worked for; no other folder is told of."""
    folder = settings.state_dir / "jobs"
    found = [path.name for path in folder.iterdir() if (path / "outbox").is_dir()] if folder.is_dir() else []
    return sorted(name for name in found if m.NAME.fullmatch(name) and name not in but)
