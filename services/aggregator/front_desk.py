"""Where submitters are served: job specs, aborts and queries from `fedbus.jobs`, see `requests` for what they say.

A request is acknowledged after its answer was given; a job is in the ledger before it is accepted. A request that comes
twice is answered twice and done once: the message id of a submit names its job.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer, Delivery
from fedbus.bus.publisher import Publisher
from fedbus.bus.rpc import reply
from fedbus.core import events, wire
from fedbus.core.messages import JobState
from fedbus.core.spec_text import MAX_TEXT_BYTES
from fedbus.errors import JobSpecError, Problem
from fedbus.store.ledger import JobRow
from services.aggregator import requests, views
from services.aggregator.job_runner import JobRunner
from services.aggregator.tools import Tools

REQUESTS_PREFETCH = 8


class FrontDesk:
    """`runners` are the jobs that have not ended, by id; `start_job` makes a new one run."""

    def __init__(
        self,
        *,
        tools: Tools,
        runners: Mapping[str, JobRunner],
        start_job: Callable[[JobRow], None],
        publisher: Publisher,
    ) -> None:
        self._tools = tools
        self._runners = runners
        self._start_job = start_job
        self._publisher = publisher

    async def serve(self, session: Session) -> None:
        """Answer requests for ever."""
        async with Consumer(session, t.JOBS, prefetch=REQUESTS_PREFETCH, most_bytes=MAX_TEXT_BYTES) as deliveries:
            async for delivery in deliveries:
                try:
                    answer = await self._answer(delivery)
                except JobSpecError as exc:
                    answer = requests.rejected(*exc.problems)
                await reply(self._publisher, delivery.envelope, wire.to_json(answer), type="answer")
                await delivery.ack()

    async def _answer(self, delivery: Delivery) -> dict[str, Any]:
        envelope = delivery.envelope
        if not envelope.user_id:
            message = "set the AMQP property user_id to your login: fedbus keeps who submitted what"
            return requests.rejected(Problem(path="user_id", message=message))
        match envelope.routing_key.split("."):
            case ["submit", _]:
                return await self._submit(delivery)
            case ["abort", job]:
                return self._abort(job, requests.body_of(envelope).get("reason"), envelope.user_id)
            case ["query"]:
                return await self._query(requests.body_of(envelope))
        message = f"expected submit.<user>, abort.<job> or query, got {envelope.routing_key!r}"
        return requests.rejected(Problem(path="routing key", message=message))

    async def _submit(self, delivery: Delivery) -> dict[str, Any]:
        spec, envelope = requests.spec_of(delivery.envelope), delivery.envelope
        message_id = envelope.message_id or secrets.token_hex(8)
        new = requests.job_id(spec, message_id)
        job = await self._tools.store(
            self._tools.ledger.add_job,
            new,
            spec.to_dict(),
            message_id=message_id,
            submitted_by=envelope.user_id or "",
            state=str(JobState.SUBMITTED),
            at=time.time(),
        )
        rows = await self._tools.store(self._tools.ledger.jobs)
        row = next(r for r in rows if r.job == job)
        if row.spec != spec.to_dict():
            message = f"{message_id!r} was used before, for {job} with another spec: give each submit its own id"
            return requests.rejected(Problem(path="message_id", message=message))
        if job not in self._runners and not JobState(row.state).ended:
            self._start_job(row)
            text = f"{envelope.user_id} submitted task {spec.task}"
            await self._tools.announcer.event(events.JOB_SUBMITTED, job, text)
        return {"accepted": {"job": job}}

    def _abort(self, job: str, reason: object, user: str) -> dict[str, Any]:
        runner = self._runners.get(job)
        if runner is None:
            running = ", ".join(sorted(self._runners)) or "none"
            message = f"no running job {job!r}; running jobs: {running}"
            return requests.rejected(Problem(path="job", message=message))
        runner.abort(f"aborted by {user}" + (f": {reason}" if reason else ""))
        return {"aborted": {"job": job}}

    async def _query(self, body: Any) -> dict[str, Any]:
        what, wanted = body.get("what", "jobs"), body.get("job")
        if what == "sites":
            return {"sites": [views.site_line(view) for view in self._tools.membership.views()]}
        rows = await self._tools.store(self._tools.ledger.jobs)
        if what == "jobs":
            return {"jobs": [views.job_line(row, self._runners.get(row.job), self._tools.membership) for row in rows]}
        row = next((r for r in rows if r.job == wanted), None)
        if what != "job" or row is None:
            known = ", ".join(r.job for r in rows[-5:]) or "none"
            message = f"no job {wanted!r}; newest jobs: {known}" if what == "job" else f"no query {what!r}"
            return requests.rejected(Problem(path=str(what), message=message))
        went_wrong = await self._tools.store(views.went_wrong, self._tools.ledger, row.job)
        return {"job": views.job_detail(row, self._runners.get(row.job), self._tools.membership, went_wrong)}
