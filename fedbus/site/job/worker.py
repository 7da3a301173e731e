"""One accepted job at a site: three tasks that go on until the job ends.

    follow   chunks and manifests of the model log → files, see `model_follower`; each new version wakes `train`
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

from fedbus.bus.post import ControlMessage, Post
from fedbus.bus.stream import StreamReader
from fedbus.core.protocol import messages as m
from fedbus.core.spec.head import JobSpec
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.runtime.metrics import LOCAL_UPDATES
from fedbus.runtime.telemetry import Telemetry
from fedbus.site.door import Lane
from fedbus.site.job import assignment, model_wanted
from fedbus.site.job.hand_back import HandBack, Receiver
from fedbus.site.job.loop import Say, StartTrainer, TrainingLoop
from fedbus.site.job.model_files import ModelFiles
from fedbus.site.job.model_follower import ModelFollower
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
        telemetry: Telemetry | None = None,
        reached: Reached = nothing,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: timedelta = model_wanted.FIRST,
    ) -> None:
        self._job = job
        self._site = settings.site_name
        self._say = say
        self._reached = reached
        telemetry = telemetry or Telemetry()
        self._metrics = telemetry.metrics
        folder = make_folder(job_folder(settings, job))
        write_spec(folder, spec)
        self._outbox = Outbox(folder / "outbox", self._site)
        files = ModelFiles(folder / "model", chained=post.guard is not None)
        self._uploads = Uploads(
            job,
            outbox=self._outbox,
            lane=lane,
            on_withheld=self.withdraw,
            telemetry=telemetry,
            reached=reached,
            sleep=sleep,
        )
        self._trouble: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Has the error that a control message has met; it ends `run`, and not the daemon that hands messages out."""
        self._aggregator = ""
        self.ended = False
        self.begins_anew = False
        """The job goes on in another model log: whoever works for it begins again."""
        self._hand_back = HandBack(job, spec, folder=folder, receiver=receiver)
        self._loop = TrainingLoop(
            job,
            spec,
            settings=settings,
            files=files,
            outbox=self._outbox,
            say=say,
            on_update=self._uploads.committed,
            start=start,
            places=places,
            submitter=submitter,
            labels=labels,
            hand_back=self._hand_back,
            rules=rules,
            telemetry=telemetry,
        )
        self._model = ModelFollower(
            job,
            self._site,
            reader=reader,
            post=post,
            folder=folder,
            files=files,
            ask=self._ask_for_snapshot,
            on_receipt=self._receipt,
            on_lost=self._uploads.send_again,
            on_change=self._loop.wake,
            telemetry=telemetry,
            reached=reached,
            patience=patience,
        )

    @property
    def layout_digest(self) -> str:
        """Of the params that the task makes here; empty until it is open."""
        return self._loop.layout_digest

    @property
    def activity(self) -> m.JobActivity:
        """What the site does for this job right now."""
        activity, wanted = self._loop.activity, self._model.trouble
        return activity if wanted is None else replace(activity, detail=wanted)

    @property
    def unsettled(self) -> int:
        """Updates that await their receipt."""
        return len(self._outbox.waiting)

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
                group.create_task(self._model.run(), name=f"follow {self._job}"),
                group.create_task(self._uploads.run(), name=f"upload {self._job}"),
                group.create_task(self._model.watch(), name=f"watch {self._job}"),
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
            case m.JobStarted() if not self._model.begin(message):
                log.warning("model-log-anew", job=self._job, text="the aggregator was restored from a backup")
                self.begins_anew = True
                await self._loop.stop()
            case m.JobStarted(session=session):
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

    async def _receipt(self, receipt: m.Receipt) -> None:
        self._reached(Point.SITE_RECEIPT)
        log.debug("update-receipt", job=self._job, update=receipt.update_id, outcome=str(receipt.outcome))
        refused = receipt.outcome is m.Outcome.REFUSED
        update_id = m.UpdateId.parse(receipt.update_id)
        entry = self._outbox.entry(update_id)
        if not self._outbox.remove(update_id, refused=refused):
            return
        if entry is not None and entry.manifest.kind is m.UpdateKind.DELTA:
            self._metrics.add(LOCAL_UPDATES, job_id=self._job, outcome="refused" if refused else "folded")
        if refused:
            log.warning("update-refused", job=self._job, update=receipt.update_id, reason=receipt.reason)
        if receipt.rebase is not None:
            log.warning("rebase", job=self._job, update=receipt.update_id, from_version=receipt.rebase)
            await self._loop.rebase(receipt.rebase)
        await self._loop.wake()

    async def _ask_for_snapshot(self, reason: Sayable) -> None:
        await self._say(assignment.resync(self._job, self._site, reason))


def left_over(settings: SiteSettings, *, but: Collection[str]) -> list[str]:
    """Jobs of which there are files here, `but` those that are being worked for; no other folder is told of."""
    folder = settings.state_dir / "jobs"
    found = [path.name for path in folder.iterdir() if (path / "outbox").is_dir()] if folder.is_dir() else []
    return sorted(name for name in found if m.NAME.fullmatch(name) and name not in but)
