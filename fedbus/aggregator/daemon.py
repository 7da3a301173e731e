"""The aggregator daemon: settings → open adapters → loop → stop.

    standby    another aggregator works on this state folder: wait until it is gone, see `standby`
    requests   fedbus.jobs → accept or reject, abort, answer queries, see `front_desk`
    sites      fedbus.sites → membership → the runners of the jobs concerned, see `site_desk`
    jobs       one intake and one runner per job that has not ended, see `jobs`

Stop order: no new deliveries are taken, what is being written is finished, the connections close. Nothing else needs
to be saved at the end: whatever was acknowledged is on disk, and a restart continues from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import structlog

from fedbus.aggregator.audit import logins, open_audit
from fedbus.aggregator.desk.broker_watch import BrokerWatch
from fedbus.aggregator.desk.fetches import Fetches
from fedbus.aggregator.desk.forgetting import Forgetting
from fedbus.aggregator.desk.front_desk import FrontDesk
from fedbus.aggregator.desk.gauges import Gauges
from fedbus.aggregator.desk.site_desk import SiteDesk
from fedbus.aggregator.job.jobs import Jobs
from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.settings import LOGIN, AggregatorSettings
from fedbus.aggregator.site_numbers import SiteNumbers
from fedbus.aggregator.standby import hold
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.voice.announcer import Announcer
from fedbus.aggregator.workers import Disk, Worker
from fedbus.bus import topology as t
from fedbus.bus.connection import Backoff, OnState, Session
from fedbus.bus.declare import declare, exists
from fedbus.bus.post import SEAL_KEY, Post
from fedbus.bus.publisher import Publisher
from fedbus.core.job.membership import Membership
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.errors import ConnectionLostError
from fedbus.runtime.allocator import keep_freed_chunks
from fedbus.runtime.faults import fault_hook
from fedbus.runtime.lifecycle import until_stopped
from fedbus.runtime.metrics import Of
from fedbus.runtime.telemetry import telemetry_of
from fedbus.store.files import make_folder
from fedbus.store.ledger import Ledger
from fedbus.store.lock import StateLock
from fedbus.store.spool import Spool

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity, Verifier

# Sites back off for longer, because there are many. Everybody waits for this one after an outage of the broker.
BACKOFF = Backoff(most=timedelta(seconds=4))

log = structlog.get_logger()


async def run_aggregator(settings: AggregatorSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises StoreError, LoginError or SettingsError when it cannot start."""
    import torch  # before standing by: a takeover must not wait for it

    torch.set_num_threads(settings.threads)
    lock = StateLock(make_folder(settings.state_dir))
    if not await hold(lock, stop):
        return
    with closing(lock):
        async with Aggregator(settings) as aggregator:
            await aggregator.run(stop)


class Aggregator:
    """Open adapters and the state of all jobs."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._membership = Membership()
        self._session_id = secrets.token_hex(8)
        self._reached = fault_hook(settings.fault)
        self._disk = Disk()
        self._broker_watch = BrokerWatch()
        self._runners: Mapping[str, JobRunner] = {}

    async def __aenter__(self) -> Self:
        settings, stack = self._settings, self._stack
        self._identity, state = settings.identity(), settings.state_dir
        if self._identity is not None:
            keep_freed_chunks()
        self._telemetry = telemetry_of(Of.AGGREGATOR, LOGIN, port=settings.metrics_port)
        tracing = self._telemetry.tracing
        stack.callback(tracing.close)
        post = Post(self._identity, seal_key=state / SEAL_KEY, suite=settings.seal_suite, trace=tracing.newest)
        url, identity = settings.url_for(LOGIN), self._identity
        make_folder(settings.initial_params_dir)
        audit = await stack.enter_async_context(open_audit(settings, identity, session=self._session_id))

        def session(*, name: str, on_state: OnState | None = None, **options: Any) -> Session:
            notes = logins(audit, name, url, identity, also=on_state)
            return Session(
                url,
                name=name,
                identity=identity,
                outgoing=post.outgoing,
                retry_login=True,
                on_state=notes,
                **options,
            )

        self._ledger = stack.enter_context(Ledger(state / "ledger.sqlite3"))
        self._spool = Spool(state / "spool", keep_updates=settings.keep_updates)
        store = stack.enter_context(Worker("store", self._disk))
        questions = stack.enter_context(Worker("questions", self._disk))
        self._fetching = stack.enter_context(Worker("fetches", self._disk))
        self._control = await stack.enter_async_context(
            session(name="aggregator/control", on_state=self._broker_watch.on_state, backoff=BACKOFF)
        )
        self._bulk_in = await stack.enter_async_context(session(name="aggregator/updates", follows=self._control))
        self._bulk_out = await stack.enter_async_context(session(name="aggregator/models", follows=self._control))
        dead = await stack.enter_async_context(session(name="aggregator/dead", follows=self._control))
        self._publisher = Publisher(self._control)
        self._dead = dead
        self._announcer = Announcer(
            self._publisher,
            post=post,
            dead=Publisher(dead),
            keep=self._keep,
            audit=audit,
            metrics=self._telemetry.metrics,
        )
        self._tools = Tools(
            session=self._session_id,
            ledger=self._ledger,
            store=store,
            disk=self._disk,
            compute=questions,
            saving=questions,
            post=post,
            announcer=self._announcer,
            audit=audit,
            membership=self._membership,
            score_timeout_s=settings.score_timeout_s,
            checkpoint_interval_s=settings.checkpoint_interval_s,
            nobody_left_s=settings.nobody_left_s,
            enrolled=lambda site: exists(self._control, t.site_queue(site)),
            numbers=None if self._identity is None else SiteNumbers(self._identity.kit),
            telemetry=self._telemetry,
            reached=self._reached,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, also while the broker cannot be reached."""
        gauges = Gauges(
            tools=self._tools,
            runners=lambda: self._runners,
            sessions=(self._control, self._bulk_in, self._bulk_out, self._dead),
            state_dir=self._settings.state_dir,
        )
        host, port = str(self._settings.metrics_host), self._settings.metrics_port
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work(), name="work")
            page = group.create_task(self._telemetry.serve(gauges.look, host=host, port=port), name="metrics")
            await until_stopped(stop, work, page)

    async def _work(self) -> None:
        await self._control.ready()
        await self._declare()
        await self._warn_of_another()
        log.info("aggregator-ready", broker=str(self._control.url), state_dir=str(self._settings.state_dir))
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(
                self._settings,
                tools=self._tools,
                spool=self._spool,
                control=self._control,
                bulk_in=self._bulk_in,
                bulk_out=self._bulk_out,
                group=group,
            )
            self._runners = jobs.runners
            forgetting = Forgetting(
                tools=self._tools,
                spool=self._spool,
                session=self._control,
                state_dir=self._settings.state_dir,
                is_open=jobs.is_open,
                keep_days=self._settings.forget_after_days,
                keep_bytes=self._settings.keep_bytes,
            )
            requests = FrontDesk(
                tools=self._tools,
                runners=jobs.runners,
                start_job=jobs.start,
                forgetting=forgetting,
                publisher=self._publisher,
                fetches=Fetches(
                    self._settings.state_dir / "jobs",
                    worker=self._fetching,
                    publisher=Publisher(self._bulk_out),
                    guard=self._tools.post.guard,
                ),
            )
            sites = SiteDesk(tools=self._tools, jobs=jobs)
            self._disk.told = lambda text: group.create_task(self._disk_has_room(jobs, text))
            group.create_task(self._announcer.run(), name="announce")
            group.create_task(self._broker_watch.run(jobs, self._announcer, declare=self._declare), name="broker watch")
            group.create_task(jobs.open_all(), name="open jobs")
            group.create_task(requests.serve(self._control), name="requests")
            group.create_task(sites.serve(self._control), name="sites")
            group.create_task(sites.watch_leases(), name="leases")
            group.create_task(forgetting.run(), name="forgetting")
            if self._identity is not None:
                from fedbus.aggregator.desk.kit_watch import KitWatch  # loads cryptography

                watch = KitWatch(self._identity, tools=self._tools, jobs=jobs, sites=sites, believe=self._believe)
                group.create_task(watch.run(), name="kit watch")

    def _believe(self, identity: Identity, verifier: Verifier) -> None:
        """The kit has changed: this is who we are from now on, and whom we believe."""
        self._identity = identity
        self._tools.post.believe(identity, verifier)

    async def _declare(self) -> None:
        await declare(self._control, t.FEDERATION)

    async def _keep(self, event: m.Event) -> None:
        keep = self._tools.ledger.add_incident
        await self._tools.store(keep, event.job, event.kind, event.text, at=event.at)

    async def _disk_has_room(self, jobs: Jobs, text: str) -> None:
        for job in list(jobs.runners) or [events.NOBODY]:
            await self._announcer.event(job, events.DiskHasRoom(what=text))

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
