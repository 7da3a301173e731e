"""Every job that has not ended at this aggregator: opened after a start, run, closed when it has ended.

job ...    one intake, one runner and one thread for tensors per job, made by `wiring`; what goes wrong in one job is
           that job's trouble, see `trouble`
close ...  a job that has ended: see `closing`; also when a kill came between its end and that
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from fedbus.aggregator.incoming.complete import Complete
from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.job.wiring import Wiring
from fedbus.aggregator.settings import AggregatorSettings
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.trouble import Troubles, everybodys, words
from fedbus.aggregator.workers import Worker
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import declare, exists
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.errors import BusError, FedbusError, StoreError
from fedbus.store.ledger_schema import ANYBODY
from fedbus.store.rows import JobRow
from fedbus.store.spool import Spool

ENDED = frozenset(str(state) for state in m.JobState if state.ended)

log = structlog.get_logger()


class Jobs:
    """Runners by job id. `bulk_in` and `bulk_out` carry updates and versions, `control` everything small."""

    def __init__(
        self,
        settings: AggregatorSettings,
        *,
        tools: Tools,
        spool: Spool,
        control: Session,
        bulk_in: Session,
        bulk_out: Session,
        group: asyncio.TaskGroup,
    ) -> None:
        self._tools = tools
        self._spool = spool
        self._control = control
        self._wiring = Wiring(settings, tools=tools, spool=spool, control=control, bulk_in=bulk_in, bulk_out=bulk_out)
        self._runners: dict[str, JobRunner] = {}
        self._closing_now: set[str] = set()
        self._group = group

    @property
    def runners(self) -> Mapping[str, JobRunner]:
        """The jobs that have not ended."""
        return self._runners

    def is_open(self, job: str) -> bool:
        """Whether the job runs, or is being closed."""
        return job in self._runners or job in self._closing_now

    async def open_all(self) -> None:
        """Take up what the ledger holds, and ask the sites who is there."""
        rows = await self._tools.store(self._tools.ledger.jobs)
        for row in rows:
            if row.state not in ENDED:
                await self._start_or_fail(row)
            elif self._spool.holds(row.job):
                self._group.create_task(self._close_again(row), name=f"close {row.job}")
        await self._tools.announcer.tell(None, m.RollCall(session=self._tools.session))

    async def _start_or_fail(self, row: JobRow) -> None:
        """A job that this release cannot read must not keep the others from going on."""
        try:
            self.start(row)
        except Exception as exc:  # noqa: BLE001 it is said as the reason
            await self._fail(row.job, words(exc))

    async def _fail(self, job: str, reason: str) -> None:
        state = str(m.JobState.FAILED)
        await self._tools.store(self._tools.ledger.set_job, job, state=state, reason=reason, ended_at=time.time())
        await self._tools.announcer.event(job, events.JobEnded(state=state, reason=reason))

    def start(self, row: JobRow) -> None:
        """Run a job in a task of its own. Raises JobSpecError when this release cannot read its spec."""
        if row.job in self._runners:
            return  # a submit that came again after a restart may be quicker than `open_all`
        compute = Worker(f"compute {row.job}", self._tools.disk)
        saving = Worker(f"checkpoints {row.job}", self._tools.disk)
        tools = replace(self._tools, compute=compute, saving=saving)
        self._runners[row.job] = self._wiring.runner(row, tools)
        self._group.create_task(self._lead(row.job, tools), name=f"job {row.job}")

    async def _lead(self, job: str, tools: Tools) -> None:
        """Whatever goes wrong in a job is its own trouble: it is taken up again, and at last has failed."""
        troubles = Troubles()
        with tools.compute, tools.saving:
            while True:
                runner = self._runners[job]
                try:
                    return await self._run_job(runner)
                except Exception as exc:
                    if everybodys(exc):
                        raise
                    pause_s = troubles.pause_s(runner.work.progress)
                    log.exception("job-trouble", job=job)
                    if await self._given_up(runner, words(exc), pause_s):
                        return None
                await asyncio.sleep(pause_s or 0.0)
                for thread in (tools.compute, tools.saving):
                    await thread(_nothing)  # what the runner had begun is done
                await self._take_up_again(job, tools)

    async def _given_up(self, runner: JobRunner, reason: str, pause_s: float | None) -> bool:
        """Whether a job in which something went wrong is not taken up again: it has ended, or has now failed.

        One that is given up is taken up once more, only to end: what it has is exported.
        """
        job = runner.job
        row = await self._tools.store(self._tools.ledger.job, job)
        if row is None or m.JobState(row.state).ended:
            self._runners.pop(job, None)  # the next start closes it
            await self._start_follow_up(job)
            return True
        if runner.failing is None:
            if pause_s is None:
                runner.failing = f"again and again something went wrong in the aggregator: {reason}"
                return False
            await self._tools.announcer.event(job, events.JobTrouble(reason=reason, retry_s=pause_s))
            return False
        self._runners.pop(job, None)
        await self._fail(job, runner.failing)
        for site in await self._tools.store(self._tools.ledger.participants, job):
            if site != ANYBODY:
                ended = m.JobEnded(job=job, state=m.JobState.FAILED, reason=runner.failing)
                await self._tools.announcer.tell(site, ended)
        return True

    async def _start_follow_up(self, job: str) -> None:
        """Run the job that was made when this one ended, if one was; it is that one's trouble when it cannot run."""
        row = await self._tools.store(self._tools.ledger.job, job)
        name = None if row is None else (row.result or {}).get("follow_up")
        follow_up = None if name is None else await self._tools.store(self._tools.ledger.job, name)
        if follow_up is None or m.JobState(follow_up.state).ended or follow_up.job in self._runners:
            return
        submitted = events.JobSubmitted(login=follow_up.submitted_by, task=follow_up.spec.get("task", ""))
        await self._tools.announcer.event(follow_up.job, submitted)
        await self._start_or_fail(follow_up)

    async def _take_up_again(self, job: str, tools: Tools) -> None:
        """As after a restart of the process; a new session makes the sites send again what awaits its receipt."""
        row = await self._tools.store(self._tools.ledger.job, job)
        if row is None:
            raise StoreError(f"job {job} is gone from the ledger")
        before = self._runners[job]
        self._runners[job] = runner = self._wiring.runner(row, replace(tools, session=secrets.token_hex(8)))
        runner.failing = before.failing
        if before.aborting is not None:
            runner.abort(before.aborting)

    async def _run_job(self, runner: JobRunner) -> None:
        job = runner.job
        await declare(self._control, t.job_updates(job))
        try:
            await runner.open()
        except FedbusError as exc:
            if isinstance(exc, BusError):
                raise
            # its facts and checkpoints stay as they are, for people to look at
            del self._runners[job]
            await self._fail(job, str(exc))
            return
        await runner.entrance.open(await self._tools.store(self._tools.ledger.participants, job))
        intake = self._wiring.intake(runner)
        await intake.restore()
        runner.receiving = intake.receiving
        for view in self._tools.membership.views():
            await self.offer(runner, view.name)
        closing = self._wiring.closing(job, state=lambda: runner.life.state, entrance=runner.entrance)
        async with asyncio.TaskGroup() as group:
            receive = group.create_task(self._wiring.receive(intake, job), name=f"job {job} intake")
            letting_in = group.create_task(runner.entrance.run(), name=f"job {job} entrance")
            await runner.serve()
            await self._start_follow_up(job)
            await self._tools.announcer.drained()
            self._closing_now.add(job)
            del self._runners[job]
            letting_in.cancel()
            await asyncio.wait({letting_in})  # what it was binding must not stay
            await closing.drain(runner.complete, intake)
            receive.cancel()
        await closing.clear()
        self._closing_now.discard(job)

    async def _close_again(self, row: JobRow) -> None:
        """A kill came between the job's end and its closing, perhaps before anybody was told of the end."""
        self._closing_now.add(row.job)
        try:
            await self._close(row)
        except Exception as exc:
            if everybodys(exc):
                raise
            log.exception("job-not-closed", job=row.job, text="its queue and bodies stay until the next start")
        finally:
            self._closing_now.discard(row.job)

    async def _close(self, row: JobRow) -> None:
        ended = events.JobEnded(state=row.state, reason=row.reason, result=row.result or {})
        await self._tools.announcer.event(row.job, ended)
        complete = Complete()
        sites = await self._tools.store(self._tools.ledger.participants, row.job)
        entrance = self._wiring.entrance(row.job, sites)
        closing = self._wiring.closing(row.job, state=lambda: m.JobState(row.state), entrance=entrance)
        if await exists(self._control, t.updates_queue(row.job)):
            intake = self._wiring.last_intake(row.job, complete, sites=sites)
            await intake.restore()
            async with asyncio.TaskGroup() as group:
                receive = group.create_task(self._wiring.receive(intake, row.job), name=f"close {row.job} intake")
                await closing.drain(complete, intake)
                receive.cancel()
        await closing.clear()

    async def offer(self, runner: JobRunner, site: str) -> None:
        """Offer a job to a site, unless its spec names others."""
        spec = runner.life.head
        if spec.sites is None or site in spec.sites:
            signed, follows = await self._tools.store(self._tools.ledger.trust.submission, runner.job)
            offer = m.JobOffer(
                job=runner.job,
                spec=spec.to_offer(),
                submitter=runner.row.submitted_by,
                submission=signed,
                follows=follows,
            )
            await self._tools.announcer.tell(site, offer)


def _nothing() -> None:
    """Done when all that was handed to a worker before is."""
