"""What a job is made of, put together: its runner, its work, its intake, its way into the queue, its model log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

from fedbus.aggregator.incoming.complete import Complete
from fedbus.aggregator.incoming.entrance import Entrance
from fedbus.aggregator.incoming.intake import Intake, TellUseless
from fedbus.aggregator.incoming.uploads import most_bytes
from fedbus.aggregator.job import receipts
from fedbus.aggregator.job.closing import Closing
from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.job.works import Place, work_of
from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.model.log import ModelLogWriter, stream_of
from fedbus.aggregator.settings import AggregatorSettings
from fedbus.aggregator.tools import Tools
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare, exists
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.head import MOST_CHUNK_BYTES, JobSpec
from fedbus.store.audit_heads import Differing
from fedbus.store.ledger_schema import ANYBODY
from fedbus.store.rows import JobRow
from fedbus.store.spool import Spool
from fedbus.trust.sealing import PublicKey, announced


class Wiring:
    """`bulk_in` and `bulk_out` carry updates and versions, `control` everything small."""

    def __init__(
        self,
        settings: AggregatorSettings,
        *,
        tools: Tools,
        spool: Spool,
        control: Session,
        bulk_in: Session,
        bulk_out: Session,
    ) -> None:
        self._settings = settings
        self._tools = tools
        self._spool = spool
        self._control = control
        self._bulk_in = bulk_in
        self._bulk_out = bulk_out

    def runner(self, row: JobRow, tools: Tools) -> JobRunner:
        """The runner of a job with tools of its own, not opened yet. JobSpecError when its spec cannot be read."""
        complete = Complete()
        epochs = self._epochs(row.job)

        async def open_log(job: str, spec: JobSpec, layout: Layout) -> ModelLogWriter:
            return await self._open_log(job, spec, layout, epochs)

        place = Place(
            jobs=self._settings.state_dir / "jobs",
            params=self._settings.initial_params_dir,
            spool=self._spool,
            open_log=open_log,
        )
        work = work_of(row, complete=complete, place=place, tools=tools)
        return JobRunner(row, work=work, complete=complete, tools=tools, entrance=self.entrance(row.job), epochs=epochs)

    def entrance(self, job: str, sites: Iterable[str] = ()) -> Entrance:
        """What lets updates of sites into the queue of a job; `sites` are in already."""

        async def held_off(site: str, text: str) -> None:
            await self._tools.announcer.event(job, events.SiteLimited(site=site, what=text))

        return Entrance(job, session=self._control, held_off=held_off, sites=sites)

    def intake(self, runner: JobRunner) -> Intake:
        """What takes the updates of a job that runs."""
        return self._intake(
            runner.job,
            runner.life.head.chunk_bytes,
            runner.complete,
            layout=lambda: runner.layout,
            takes_part=runner.participants.takes_part,
            useless=runner.entrance.useless,
        )

    def last_intake(self, job: str, complete: Complete, *, sites: Collection[str]) -> Intake:
        """What takes the updates of a job that has ended, for them to be refused."""
        return self._intake(
            job,
            MOST_CHUNK_BYTES,
            complete,
            layout=lambda: None,
            takes_part=lambda site: site in sites or ANYBODY in sites,
            useless=lambda site, messages, size_bytes: None,
        )

    def closing(self, job: str, *, state: Callable[[], m.JobState], entrance: Entrance) -> Closing:
        """What takes a job that has ended off the broker."""
        return Closing(
            job,
            state=state,
            entrance=entrance,
            tools=self._tools,
            spool=self._spool,
            session=self._control,
            quiet=timedelta(seconds=self._settings.quiet_s),
        )

    async def receive(self, intake: Intake, job: str) -> None:
        """Bring what is in the queue of a job to its intake, until it is cancelled."""
        consumer = Consumer(
            self._bulk_in, t.updates_queue(job), prefetch=intake.prefetch, most_bytes=intake.most_message_bytes
        )
        async with consumer as deliveries:
            await intake.run(deliveries)

    def _epochs(self, job: str) -> Epochs | None:
        """Those of a job's model log, to be opened by its runner; None without a kit."""
        guard, tools = self._tools.post.guard, self._tools
        if guard is None:
            return None

        def seal_key_of(site: str) -> PublicKey:
            view = tools.membership.get(site)
            return announced({} if view is None else view.seal_keys, guard.suite)

        return Epochs(
            job,
            federation=guard.identity.federation,
            ledger=tools.ledger,
            store=tools.store,
            seal_key_of=seal_key_of,
            anew_for_joiners=not self._settings.joiners_read_earlier,
        )

    def _intake(
        self,
        job: str,
        chunk_bytes: int,
        complete: Complete,
        *,
        layout: Callable[[], Layout | None],
        takes_part: Callable[[str], bool],
        useless: TellUseless,
    ) -> Intake:
        tools = self._tools

        async def ask_again(update_id: str) -> None:
            request = m.ResendRequest(job=job, update_id=update_id)
            await tools.announcer.tell(m.UpdateId.parse(update_id).site, request)

        async def dropped(site: str, text: str) -> None:
            await tools.announcer.event(job, events.UploadDropped(site=site, what=text))

        async def differs(one: Differing) -> None:
            happened = events.SiteAuditDiffers(site=one.site, known=str(one.known), came=str(one.came))
            await tools.announcer.event(job, happened)

        return Intake(
            job,
            chunk_bytes=chunk_bytes,
            most_bytes=lambda: most_bytes(layout()),
            takes_part=takes_part,
            ledger=tools.ledger,
            spool=self._spool,
            store=tools.store,
            post=tools.post,
            refuse=tools.announcer.refuse,
            repeat=lambda update_id: receipts.repeat(job, update_id, tools),
            ask_again=ask_again,
            dropped=dropped,
            useless=useless,
            complete=complete,
            partial_ttl=timedelta(seconds=self._settings.partial_timeout_s),
            reached=tools.reached,
            differs=differs,
            telemetry=tools.telemetry,
        )

    async def _open_log(self, job: str, spec: JobSpec, layout: Layout, epochs: Epochs | None) -> ModelLogWriter:
        numbers = self._tools.numbers
        readers = "" if numbers is None else numbers.readers(spec.sites)
        stream = await stream_of(job, self._tools, readers=readers)
        settled = await exists(self._control, stream)
        await declare(self._control, t.job_models(job, ModelLogWriter.size(spec, layout), stream=stream))
        if not settled:
            await asyncio.sleep(self._settings.settle_s)
        chained = None if epochs is None else await self._tools.store(self._tools.ledger.trust.newest_chain, job)
        tools = self._tools
        return ModelLogWriter(
            job,
            spec,
            layout,
            Publisher(self._bulk_out),
            post=tools.post,
            stream=stream,
            chained=chained,
            epochs=epochs,
            reached=tools.reached,
            audit=tools.audit,
        )
