"""The site daemon: settings → open adapters → loop → stop. It moves bytes and never imports torch.

    control    fedbus.site.<name> → offers are answered, messages about a job go to its worker
    status     every status interval: what is done for each job; renews the lease
    job ...    one worker per accepted job, see `jobs` and `job.worker`; what goes wrong in one is that job's trouble
    source     if one is set: a child process looks for new labels now and then, see `source_watch`
    rules      if there is a policy: its file, its hours and its day are looked at every second, and at SIGHUP
    SIGUSR2    `fedbus site stop --now`: the end within a second and without a word, see `stopping`
    SIGUSR1    `fedbus retry`: what failed is tried now, what was given up is offered again

A site whose policy cannot be read takes itself out (Leave, with the reason), is silent, and joins when it can be read.

Stop order: the trainers end, then Leave is published (nobody waits for this site from then on), then the connections
close. Updates that await their receipt stay in the outbox and are sent again after the next start.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import structlog

import fedbus
from fedbus.bus import topology as t
from fedbus.bus.consumer import Consumer
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.limits import MOST_ACTIVITIES
from fedbus.errors import DataError, ProtocolError, RepeatedError
from fedbus.runtime.cage import keep_memory_private
from fedbus.runtime.faults import Reached, fault_hook
from fedbus.runtime.lifecycle import until_stopped
from fedbus.site.adapters import Adapters, open_adapters
from fedbus.site.cage import check_cage, empty_temporary, trainer_cage
from fedbus.site.gauges import Gauges
from fedbus.site.job.loop import StartTrainer
from fedbus.site.job.trainer import start_trainer
from fedbus.site.jobs import SiteJobs
from fedbus.site.places import device_meant
from fedbus.site.settings import SiteSettings
from fedbus.store.files import make_folder

CONTROL_PREFETCH = 8
LEAVE_LIMIT = timedelta(seconds=3)

log = structlog.get_logger()


async def run_site(settings: SiteSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises DataError, StoreError, LoginError, NameTakenError or SettingsError."""
    _check_data(settings)
    check_cage(settings)
    cage = trainer_cage(settings)
    if cage is not None:
        keep_memory_private()
    async with open_site(settings, start=partial(start_trainer, cage=cage)) as site:
        await site.run(stop)
        empty_temporary(cage)


def _check_data(settings: SiteSettings) -> None:
    folder = settings.site_data
    if settings.source is not None:
        make_folder(folder)  # the source fills it
        return
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist: give the folder with this site's data (--data)")
    if not any(folder.iterdir()):
        raise DataError(f"data folder {folder} is empty: put this site's data there, or give another folder (--data)")


@asynccontextmanager
async def open_site(settings: SiteSettings, *, start: StartTrainer) -> AsyncIterator[Site]:
    """A site whose adapters are open."""
    session, reached = secrets.token_hex(8), fault_hook(settings.fault)
    async with open_adapters(settings, session=session) as adapters:
        yield Site(settings, adapters, session=session, start=start, reached=reached)


class Site:
    """What a site says of itself and is told, but for its jobs: those are `SiteJobs`."""

    def __init__(
        self, settings: SiteSettings, adapters: Adapters, *, session: str, start: StartTrainer, reached: Reached
    ) -> None:
        self._settings = settings
        self._adapters = adapters
        self._start = start
        self._name = settings.site_name
        self._session_id = session
        self._identity = adapters.identity
        self._post = adapters.post
        self._rules = adapters.rules
        self._rules_watch = adapters.rules_watch
        self._job_lines = adapters.lines
        self._source = adapters.source
        self._control = adapters.control
        self._door = adapters.door
        self._try_again = adapters.try_again
        self._reached = reached
        self._jobs: SiteJobs | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then say goodbye."""
        look, settings = Gauges(self._settings, self._adapters, jobs=lambda: self._jobs).look, self._settings
        page = self._adapters.telemetry.serve(look, host=str(settings.metrics_host), port=settings.metrics_port)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve(), name="serve")
            await until_stopped(stop, serving, group.create_task(page, name="metrics"))
        await self._leave()

    async def _serve(self) -> None:
        """Nothing is said before the control queue is ours: another daemon may run under the same name."""
        queue = t.site_queue(self._name)
        async with (
            Consumer(self._control, queue, prefetch=CONTROL_PREFETCH, exclusive=True) as deliveries,
            asyncio.TaskGroup() as group,
        ):
            start, reached = self._start, self._reached
            jobs = SiteJobs(self._settings, self._adapters, start=start, reached=reached, group=group, join=self._join)
            self._jobs = jobs
            await deliveries.attached()
            await self._join()
            log.info("site-ready", site=self._name, broker=str(self._control.url), tasks=list(self._rules.policy.tasks))
            group.create_task(self._report(jobs), name="status")
            group.create_task(self._try_when_told(jobs), name="try now")
            if self._source is not None:
                group.create_task(self._source.watch.run(jobs.labels_came), name="source")
            if self._rules_watch is not None:
                group.create_task(self._rules_watch.run(jobs), name="rules")
            await self._obey(deliveries, jobs)

    async def _try_when_told(self, jobs: SiteJobs) -> None:
        while True:
            await self._try_again.wait()
            self._try_again.clear()
            log.info("try-now", text="what failed is tried at once; jobs that were given up are offered again")
            jobs.try_now()
            await self._join()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_LIMIT.total_seconds()):
                await self._door.say(m.Leave(site=self._name, session=self._session_id))
        except TimeoutError:
            log.warning(
                "leave-unsaid",
                text="the broker, or the disk of the audit log, is not there; the lease runs out by itself",
            )

    # -------------------------------------------------------------- saying

    async def _join(self) -> None:
        await self._door.say(
            m.Join(
                site=self._name,
                session=self._session_id,
                tasks=self._rules.policy.tasks,
                fedbus_version=fedbus.__version__,
                device=device_meant(self._settings.device),
                seal_keys={} if self._post.guard is None else self._post.guard.seal_keys.texts(),
            )
        )
        if (shut := self._rules.shut) is not None:
            await self._door.say(m.Leave(site=self._name, session=self._session_id, reason=shut))

    async def _report(self, jobs: SiteJobs) -> None:
        while True:
            await asyncio.sleep(self._settings.status_interval_s)
            if self._rules.shut is not None:
                continue
            done = jobs.activities
            await self._door.say(
                m.SiteStatus(
                    site=self._name,
                    session=self._session_id,
                    lease_s=self._settings.lease_s,
                    jobs=done[:MOST_ACTIVITIES],  # no more are read; of what is left over the rest is told later
                    said_at=time.time(),
                )
            )

    # -------------------------------------------------------------- obeying

    async def _obey(self, deliveries: Consumer, jobs: SiteJobs) -> None:
        async for delivery in deliveries:
            try:
                await self._take(self._post.from_aggregator(delivery.envelope, site=self._name), jobs)
            except RepeatedError as exc:
                log.info("repeated", error=str(exc))
            except ProtocolError as exc:
                log.warning("control-message", error=str(exc))
                self._job_lines.refused(exc)
            await delivery.ack()

    async def _take(self, message: wire.Message, jobs: SiteJobs) -> None:
        match message:
            case m.RollCall():
                await self._join()
            case m.CertificateRenewed() if self._identity is not None:
                from fedbus.site.renewal import take_in  # loads cryptography

                self._identity = take_in(self._identity, message)
                self._job_lines.certificate_changed(self._identity)
                self._post.believe(self._identity, self._identity.verifier())
            case m.RevocationLists() if self._identity is not None:
                from fedbus.site.renewal import take_lists

                if take_lists(self._identity, message):
                    self._post.believe(self._identity, self._identity.verifier())
            case _:
                await jobs.take(message)
