"""Where submitters are served: job specs, aborts and queries from `fedbus.jobs`, see `requests` for what they say.

A request is acknowledged after its answer was given; a job is in the ledger before it is accepted. A request that comes
twice is answered twice and done once: the message id of a submit names its job. What cannot be answered for one job, or
goes wrong in one request, stops no other; a login that asks for more work than ASK_RATE allows is told so instead.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from fedbus.aggregator.desk import curve, requests, views
from fedbus.aggregator.desk.fetches import Fetches, Part
from fedbus.aggregator.desk.forgetting import Forgetting, NotOverError
from fedbus.aggregator.incoming.allowance import Allowance
from fedbus.aggregator.job.origins import why_not
from fedbus.aggregator.job.prospects import unknown_sites
from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.trouble import words
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer, Delivery
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.bus.rpc import reply
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import events, wire
from fedbus.core.protocol import requests as q
from fedbus.core.protocol.limits import MOST_NAME, plain
from fedbus.core.protocol.messages import JobState, SignedSubmission
from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.text import MAX_TEXT_BYTES
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import IdTakenError, JobSpecError, Problem, ProtocolError, StoreError
from fedbus.store.audit_kinds import Kind
from fedbus.store.provenance import Provenance
from fedbus.store.rows import JobRow

REQUESTS_PREFETCH = 8
# A script that asks again as soon as it is answered asks some hundred times a second. A submit makes queues; a list of
# jobs is read whole.
ASK_RATE, ASK_BURST = 500.0, 2000.0
SUBMIT_COST = 20.0
COST_OF_A_JOB = 0.02
HOW_TO_SIGN = "in this federation requests are signed with a submitter's kit, as `fedbus --kit DIR submit` does"

log = structlog.get_logger()


class FrontDesk:
    """`runners` are the jobs that have not ended, by id; `start_job` makes a new one run."""

    def __init__(
        self,
        *,
        tools: Tools,
        runners: Mapping[str, JobRunner],
        start_job: Callable[[JobRow], None],
        forgetting: Forgetting,
        publisher: Publisher,
        fetches: Fetches,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = tools
        self._runners = runners
        self._start_job = start_job
        self._forgetting = forgetting
        self._publisher = publisher
        self._fetches = fetches
        self._clock = clock
        self._asking = Allowance(rate=ASK_RATE, burst=ASK_BURST)
        self._provenance = Provenance(tools.ledger)
        self._listed = 0

    async def serve(self, session: Session) -> None:
        """Answer requests for ever."""
        consumer = Consumer(session, t.JOBS, prefetch=REQUESTS_PREFETCH, most_bytes=MAX_TEXT_BYTES)
        async with consumer as deliveries, asyncio.TaskGroup() as group:
            group.create_task(self._fetches.watch(), name="fetches")
            async for delivery in deliveries:
                answer = await self.answer(delivery)
                if isinstance(answer, Part):  # it takes as long as a slow line does, others are served meanwhile
                    await delivery.ack()
                    group.create_task(self._fetches.send(delivery.envelope, answer), name="part")
                    continue
                await reply(self._publisher, delivery.envelope, wire.to_json(a.to_json(answer)), type="answer")
                await delivery.ack()

    async def answer(self, delivery: Delivery) -> a.Answer | Part:
        """What is to be answered, whatever was asked; a part is to be sent."""
        try:
            return await self._answer(delivery)
        except JobSpecError as exc:
            return a.Rejected(errors=exc.problems)
        except NotOverError as exc:
            return a.rejected("job", str(exc))
        except Exception as exc:
            log.exception("request", key=delivery.envelope.routing_key)
            message = f"the aggregator could not do it: {words(exc)}; its log says more"
            return a.rejected("", message)

    async def _answer(self, delivery: Delivery) -> a.Answer | Part:
        envelope = delivery.envelope
        if (problem := self._problem(envelope)) is not None:
            return a.Rejected(errors=(problem,))
        try:
            signed = self._tools.post.asked(envelope)
        except ProtocolError as exc:
            return a.rejected("signature", f"{exc}; {HOW_TO_SIGN}")
        match envelope.routing_key.split("."):
            case ["submit", _]:
                return await self._submit(delivery, signed)
            case ["abort", job]:
                return await self._end(q.abort_of(job, requests.body_of(envelope)), envelope.user_id or "")
            case ["query"]:
                return await self._query(requests.query_of(envelope), envelope.user_id or "")
            case _:
                message = f"expected submit.<user>, abort.<job> or query, got {envelope.routing_key!r}"
                return a.rejected("routing key", message)

    def _problem(self, envelope: Envelope) -> Problem | None:
        """Why a request is not looked at."""
        if not envelope.user_id:
            message = "set the AMQP property user_id to your login: fedbus keeps who submitted what"
            return Problem(path="user_id", message=message)
        if envelope.copied:
            message = "leave out the headers CC and BCC: a request goes where its one key says"
            return Problem(path="headers", message=message)
        if not self._asking.take(envelope.user_id, self._cost(envelope), now=self._clock()):
            message = f"login {envelope.user_id} asks too much at once: ask again in a second, and less often"
            return Problem(path="", message=message)
        return None

    def _cost(self, envelope: Envelope) -> float:
        if envelope.routing_key.startswith("submit."):
            return SUBMIT_COST
        return 1.0 if requests.is_part(envelope) else 1.0 + COST_OF_A_JOB * self._listed

    async def _submit(self, delivery: Delivery, signed: SignedSubmission | None) -> a.Accepted | a.Rejected:
        spec, envelope = requests.spec_of(delivery.envelope), delivery.envelope
        if signed is not None and not envelope.message_id:
            return a.rejected("message_id", "set the AMQP property message_id: a signed submit is taken once")
        wanted = requests.wanted_id(envelope)
        message_id = envelope.message_id or wanted or secrets.token_hex(8)
        name = wanted or requests.job_id(spec, message_id)
        if problem := await self._tools.store(self._no_beginning, name, spec):
            return a.rejected("continues", problem)
        try:
            job = await self._tools.store(
                self._tools.ledger.add_job,
                name,
                spec.to_dict(),
                message_id=message_id,
                submitted_by=envelope.user_id or "",
                state=str(JobState.SUBMITTED),
                at=time.time(),
                signed=signed,
            )
        except IdTakenError as exc:
            return a.rejected("job", f"{exc}: submit it under another id")
        row = await self._tools.store(self._tools.ledger.job, job)
        if row is None:
            raise StoreError(f"job {job} is not in the ledger, where it was just written")
        same = kinds.parse(row.spec) == spec  # a release before has kept it without the keys that it did not know
        if not same or row.submitted_by != envelope.user_id or (wanted or job) != job:
            what = "login or id" if same else "spec"
            message = f"{message_id!r} was used before, for {job} with another {what}: give each submit its own id"
            return a.rejected("message_id", message)
        if job not in self._runners and not JobState(row.state).ended:
            self._start_job(row)
            submitted = events.JobSubmitted(login=row.submitted_by, task=spec.task)
            await self._tools.announcer.event(job, submitted)
        notes = tuple((await unknown_sites(spec.sites or (), self._tools)).values())
        return a.Accepted(job=job, notes=notes)

    def _no_beginning(self, name: str, spec: JobSpec) -> str:
        """Why a new job cannot begin with what another one has left; empty for one that came before."""
        if not isinstance(spec, TrainingSpec) or spec.continues is None or self._tools.ledger.job(name) is not None:
            return ""
        return why_not(spec.continues, self._tools.ledger.job(spec.continues.job))

    async def _end(self, request: q.Abort | q.Forget, login: str) -> a.Answer:
        job = request.job
        if isinstance(request, q.Forget):
            gone = await self._forgetting.forget(job)
            self._tools.audit.note(Kind.JOB_FORGOTTEN, job=job, by=login, bytes=gone)
            return a.Forgotten(job=job, disk_bytes=gone)
        runner = self._runners.get(job)
        if runner is None:
            running = ", ".join(sorted(self._runners)) or "none"
            message = f"no running job {job!r}; running jobs: {running}"
            return a.rejected("job", message)
        self._tools.audit.note(Kind.JOB_ABORTED, job=job, by=login)
        runner.abort(f"aborted by {login}" + (f": {request.reason}" if request.reason else ""))
        return a.Aborted(job=job)

    async def _query(self, query: q.Query, login: str) -> a.Answer | Part:
        match query:
            case q.PartQuery():
                return self._fetches.take(query, login)
            case q.SitesQuery():
                return a.Sites(sites=tuple(map(views.site_line, self._tools.membership.views())))
            case q.EndedQuery():
                return a.Ended(ended=tuple(await self._forgetting.ended()))
            case q.AuditQuery():
                return await self._tools.compute(views.audit_heads, self._tools.ledger)
            case q.JobsQuery():
                return a.Jobs(jobs=tuple(map(self._line, await self._rows())))
            case q.JobQuery() | q.ParamsQuery() | q.HistoryQuery():
                return await self._of_job(query, await self._rows(), login)

    async def _rows(self) -> list[JobRow]:
        # beside the writes, which must not wait for who looks on
        rows = await self._tools.compute(self._tools.ledger.jobs)
        self._listed = len(rows)
        return rows

    async def _of_job(self, query: q.QueryOfJob, rows: Sequence[JobRow], login: str) -> a.Answer:
        row = next((r for r in rows if r.job == query.job), None)
        if row is None:
            known = ", ".join(r.job for r in rows[-5:]) or "none"
            message = f"no job {plain(repr(query.job), MOST_NAME)}; newest jobs: {known}"
            return a.rejected("job", message)
        ledger, read = self._tools.ledger, self._tools.compute
        match query:
            case q.ParamsQuery(version=version, seal_keys=keys):
                offer = await self._fetches.begin(row, version, login, keys)
                if isinstance(offer, a.ParamsOffer):
                    await self._tools.audit.write(
                        Kind.PARAMS_LEAVE, job=row.job, version=offer.version, to=login, bytes=offer.size_bytes
                    )
                return offer
            case q.HistoryQuery(after=after):
                return await read(curve.answer, ledger, row, after)
            case q.JobQuery():
                of_ledger = await read(views.from_the_ledger, ledger, self._provenance, row)
                return views.job_detail(row, self._runners.get(row.job), self._tools.membership, of_ledger)

    def _line(self, row: JobRow) -> a.JobLine:
        """One job of the list; one that cannot be shown must not hide the others."""
        try:
            return views.job_line(row, self._runners.get(row.job), self._tools.membership)
        except Exception as exc:
            log.exception("job-not-shown", job=row.job)
            line = views.job_line(row, None, self._tools.membership)
            return replace(line, says=f"cannot be shown: {words(exc)}")
