"""The aggregator daemon: settings → open adapters → loop → stop.

    requests   fedbus.jobs → accept or reject, abort, answer queries, see `front_desk`
    sites      fedbus.sites → membership → the runners of the jobs concerned
    leases     a site that is silent for too long is lost: its jobs stop counting on it; a job that stands still
               says why
    job ...    one intake and one runner per job that has not ended, see `intake` and `job_runner`

Stop order: no new deliveries are taken, what is being written is finished, the connections close. Nothing else needs
to be saved at the end: whatever was acknowledged is on disk, and a restart continues from there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Self

import structlog

from fedbus.bus import mail
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare, delete_queue
from fedbus.bus.publisher import Publisher
from fedbus.core import events
from fedbus.core import messages as m
from fedbus.core.jobspec import JobSpec
from fedbus.core.layout import Layout
from fedbus.core.membership import Heard, Joined, Membership
from fedbus.errors import ConnectionLostError, FedbusError, ProtocolError
from fedbus.runtime.faults import fault_hook
from fedbus.runtime.lifecycle import until_stopped
from fedbus.store.files import make_folder
from fedbus.store.ledger import JobRow, Ledger
from fedbus.store.lock import StateLock
from fedbus.store.spool import Spool
from services.aggregator import receipts, views
from services.aggregator.announcer import Announcer
from services.aggregator.front_desk import FrontDesk
from services.aggregator.intake import Intake
from services.aggregator.job_runner import JobRunner
from services.aggregator.model_keeper import ModelKeeper
from services.aggregator.model_log import ModelLogWriter
from services.aggregator.settings import LOGIN, AggregatorSettings
from services.aggregator.stalls import Stalls
from services.aggregator.tools import Tools
from services.aggregator.workers import Worker

SITES_PREFETCH = 64
UPDATES_PREFETCH = 32
LEASE_CHECK_S = 0.5
# A queue or stream younger than this is lost when a RabbitMQ 3.10 node is killed, confirmed messages included.
SETTLE = timedelta(seconds=1)

log = structlog.get_logger()


async def run_aggregator(settings: AggregatorSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises StoreError, LoginError or SettingsError when it cannot start."""
    import torch

    torch.set_num_threads(settings.threads)
    async with Aggregator(settings) as aggregator:
        await aggregator.run(stop)


class Aggregator:
    """Open adapters and the state of all jobs."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._membership = Membership()
        self._runners: dict[str, JobRunner] = {}
        self._session_id = secrets.token_hex(8)
        self._stalls = Stalls()
        self._reached = fault_hook(settings.fault)

    async def __aenter__(self) -> Self:
        settings, stack = self._settings, self._stack
        url = settings.url_for(LOGIN)
        state = make_folder(settings.state_dir)
        make_folder(settings.initial_params_dir)
        stack.enter_context(StateLock(state))
        self._ledger = stack.enter_context(Ledger(state / "ledger.sqlite3"))
        self._spool = Spool(state / "spool")
        store = stack.enter_context(Worker("store"))
        compute = stack.enter_context(Worker("compute"))
        self._control = await stack.enter_async_context(Session(url, name="aggregator/control", retry_login=True))
        self._bulk_in = await stack.enter_async_context(
            Session(url, name="aggregator/updates", retry_login=True, follows=self._control)
        )
        self._bulk_out = await stack.enter_async_context(
            Session(url, name="aggregator/models", retry_login=True, follows=self._control)
        )
        self._publisher = Publisher(self._control)
        self._announcer = Announcer(self._publisher)
        self._tools = Tools(
            session=self._session_id,
            ledger=self._ledger,
            store=store,
            compute=compute,
            announcer=self._announcer,
            membership=self._membership,
            score_timeout_s=settings.score_timeout_s,
            checkpoint_interval_s=settings.checkpoint_interval_s,
            reached=self._reached,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, also while the broker cannot be reached."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work(), name="work")
            await until_stopped(stop, work)

    async def _work(self) -> None:
        await self._control.ready()
        await declare(self._control, t.FEDERATION)
        await self._warn_of_another()
        log.info("aggregator-ready", broker=str(self._control.url), state_dir=str(self._settings.state_dir))
        desk = FrontDesk(tools=self._tools, runners=self._runners, start_job=self._start_job, publisher=self._publisher)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._announcer.run(), name="announce")
            group.create_task(self._open_jobs(), name="open jobs")
            group.create_task(desk.serve(self._control), name="requests")
            group.create_task(self._serve_sites(), name="sites")
            group.create_task(self._watch_leases(), name="leases")

    async def _warn_of_another(self) -> None:
        with suppress(ConnectionLostError):
            channel = await self._control.channel()
            if await channel.consumers(t.JOBS):
                log.warning(
                    "another-aggregator",
                    text="another aggregator answers on this broker; this one gets nothing to do while that runs, and "
                    "does not know its jobs: stop one of the two",
                )
            await channel.close()

    # -------------------------------------------------------------- jobs

    async def _open_jobs(self) -> None:
        rows = await self._tools.store(self._ledger.jobs)
        for row in rows:
            if not m.JobState(row.state).ended:
                await self._start_or_fail(row)
            elif self._spool.holds(row.job):
                await self._clear(row.job)  # a kill came between the job's end and this
        await self._announcer.tell(None, m.RollCall(session=self._session_id))

    async def _start_or_fail(self, row: JobRow) -> None:
        """A job that this release cannot read must not keep the others from going on."""
        try:
            self._start_job(row)
        except FedbusError as exc:
            await self._fail(row.job, str(exc))

    async def _fail(self, job: str, reason: str) -> None:
        state = str(m.JobState.FAILED)
        await self._tools.store(self._ledger.set_job, job, state=state, reason=reason, ended_at=time.time())
        await self._announcer.event(events.JOB_ENDED, job, f"{state}: {reason}", state=state, result={})

    def _start_job(self, row: JobRow) -> None:
        if row.job in self._runners:
            return  # a submit that came again after a restart may be quicker than `_open_jobs`
        keeper = ModelKeeper(
            row.job,
            JobSpec.parse(row.spec),
            ledger=self._ledger,
            spool=self._spool,
            folder=make_folder(self._settings.state_dir / "jobs" / row.job),
            params_dir=self._settings.initial_params_dir,
            reached=self._reached,
        )
        runner = JobRunner(row, keeper=keeper, tools=self._tools, open_log=self._open_log)
        self._runners[row.job] = runner
        self._group.create_task(self._run_job(runner), name=f"job {row.job}")

    async def _run_job(self, runner: JobRunner) -> None:
        job = runner.job
        await declare(self._control, t.job_updates(job))
        try:
            await runner.open()
        except FedbusError as exc:
            # its facts and checkpoints stay as they are, for people to look at
            del self._runners[job]
            return await self._fail(job, str(exc))
        intake = Intake(
            job,
            chunk_bytes=runner.spec.chunk_bytes,
            ledger=self._ledger,
            spool=self._spool,
            store=self._tools.store,
            refuse=self._announcer.refuse,
            repeat=lambda update_id: receipts.repeat(update_id, self._tools),
            complete=runner.complete,
            reached=self._reached,
        )
        await intake.restore()
        for view in self._membership.views():
            await self._offer(runner, view.name)
        async with asyncio.TaskGroup() as group:
            receive = group.create_task(self._receive(intake, job), name=f"job {job} intake")
            await runner.serve()
            receive.cancel()
        await self._announcer.drained()
        del self._runners[job]
        return await self._clear(job)

    async def _clear(self, job: str) -> None:
        """Nothing of an ended job is needed any more but its facts, its checkpoints and its export."""
        await delete_queue(self._control, t.updates_queue(job))
        await delete_queue(self._control, t.models_stream(job))
        await self._tools.store(self._ledger.forget_job_chunks, job)
        await self._tools.store(self._spool.remove_job, job)

    async def _receive(self, intake: Intake, job: str) -> None:
        async with Consumer(self._bulk_in, t.updates_queue(job), prefetch=UPDATES_PREFETCH) as deliveries:
            await intake.run(deliveries)

    async def _open_log(self, spec: JobSpec, job: str, layout: Layout) -> ModelLogWriter:
        await declare(self._control, t.job_models(job, ModelLogWriter.size(spec, layout)))
        await asyncio.sleep(SETTLE.total_seconds())
        return ModelLogWriter(job, spec, layout, Publisher(self._bulk_out), reached=self._reached)

    async def _offer(self, runner: JobRunner, site: str) -> None:
        if runner.spec.sites is None or site in runner.spec.sites:
            await self._announcer.tell(site, m.JobOffer(job=runner.job, spec=runner.spec.to_dict()))

    # -------------------------------------------------------------- sites

    async def _serve_sites(self) -> None:
        async with Consumer(self._control, t.SITES, prefetch=SITES_PREFETCH) as deliveries:
            async for delivery in deliveries:
                try:
                    await self._hear(mail.from_login(delivery.envelope))
                except ProtocolError as exc:
                    await self._announcer.refuse(delivery, str(exc))
                await delivery.ack()

    async def _hear(self, message: mail.SiteMessage) -> None:
        now = time.monotonic()
        match message:
            case m.Join():
                await self._on_join(message, self._membership.joined(message, now=now))
            case m.SiteStatus():
                await self._on_status(message, self._membership.status(message, now=now))
            case m.Leave():
                if self._membership.left(message, now=now) is Heard.RENEWED:
                    await self._site_event(events.SITE_LEFT, message.site, f"{message.site} left: {message.reason}")
                    self._sites_changed()
            case m.OfferAnswer() | m.ScoreAnswer() | m.ResyncRequest() | m.TrainerTrouble():
                await self._on_answer(message)

    async def _on_join(self, join: m.Join, meant: Joined) -> None:
        if meant is Joined.OLD_SESSION:
            return
        if meant is not Joined.AGAIN:
            text = f"{join.site} joined ({join.device}, fedbus {join.fedbus_version})"
            await self._site_event(events.SITE_JOINED, join.site, text if meant is Joined.NEW else f"{text}: {meant}")
        for runner in list(self._runners.values()):
            if meant is not Joined.AGAIN:
                runner.site_started_anew(join.site)
            await self._offer(runner, join.site)
        self._sites_changed()

    async def _on_status(self, status: m.SiteStatus, heard: Heard) -> None:
        if heard is Heard.UNKNOWN_SITE:
            return await self._announcer.tell(status.site, m.RollCall(session=self._session_id))
        if heard is Heard.BACK:
            await self._site_event(events.SITE_JOINED, status.site, f"{status.site} is back")
            self._sites_changed()
        for activity in status.jobs:
            runner = self._runners.get(activity.job)
            if runner is None:
                await self._say_over(status.site, activity.job)
            elif activity.version < 0:
                await runner.welcome(status.site)
        return None

    async def _say_over(self, site: str, job: str) -> None:
        """A site still works for a job that has ended, or that this aggregator never had."""
        rows = await self._tools.store(self._ledger.jobs)
        row = next((r for r in rows if r.job == job), None)
        if row is None:
            reason = "this aggregator does not know the job"
            await self._announcer.tell(site, m.JobEnded(job=job, state=m.JobState.ABORTED, reason=reason))
        elif m.JobState(row.state).ended:
            await self._announcer.tell(site, m.JobEnded(job=job, state=m.JobState(row.state), reason=row.reason))

    async def _on_answer(self, message: m.OfferAnswer | m.ScoreAnswer | m.ResyncRequest | m.TrainerTrouble) -> None:
        runner = self._runners.get(message.job)
        if runner is None:
            return
        match message:
            case m.OfferAnswer():
                await runner.on_answer(message)
            case m.ScoreAnswer():
                await runner.on_score(message)
            case m.ResyncRequest():
                await runner.on_resync(message)
            case m.TrainerTrouble():
                await runner.on_trouble(message)

    async def _watch_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            lost = self._membership.expire(now=time.monotonic())
            for site in lost:
                view = self._membership.get(site)
                reason = view.reason if view else "its lease ran out"
                await self._site_event(events.SITE_LOST, site, f"{site} is lost: {reason}")
            if lost:
                self._sites_changed()
            for runner in list(self._runners.values()):
                if self._stalls.should_tell(runner.job, runner.progress, now=time.monotonic()):
                    text = views.says(runner, self._membership)
                    await self._announcer.event(events.JOB_WAITING, runner.job, text)

    def _sites_changed(self) -> None:
        for runner in self._runners.values():
            runner.sites_changed()

    async def _site_event(self, kind: str, site: str, text: str) -> None:
        """An event of a site belongs to every running job, or to none."""
        for job in list(self._runners) or [events.NOBODY]:
            await self._announcer.event(kind, job, text, site=site)
