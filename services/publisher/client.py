"""Ask the aggregator over the bus, and follow what happens.

Every question is a message on `fedbus.jobs` with a direct reply; nothing here is special to fedbus, any AMQP client can
do the same (see `services.aggregator.requests`).
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from typing import Any, Self

from fedbus.bus import mail
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.model_log import ModelLogReader, Start
from fedbus.bus.rpc import request
from fedbus.core.jobspec import JobSpec
from fedbus.core.messages import Event
from fedbus.errors import FedbusError, JobSpecError, NoAnswerError, Problem, ProtocolError
from services.publisher.settings import LOGIN, PublisherSettings

EVENTS_PREFETCH = 64
EVENT_TYPE = "event"
# The aggregator's clock may have been set back by as much since then.
EARLIER_S = 60.0


class RefusedError(FedbusError):
    """The aggregator did not do what was asked."""


class Client:
    """A connection as submitter; an async context manager."""

    def __init__(self, settings: PublisherSettings) -> None:
        self._timeout = timedelta(seconds=settings.timeout_s)
        self._url = settings.url_for(LOGIN)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        session = Session(self._url, name="submitter", give_up_after=self._timeout)
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._stack.__aexit__(*exc)

    async def submit(self, spec: JobSpec, *, note: Callable[[str], object] = lambda text: None) -> str:
        """Submit a job and return its id; `note` is called with what the aggregator remarks on it.

        Raises JobSpecError when the aggregator refuses the job.
        NoAnswerError when nobody answers in time: the spec then waits in its queue.
        """
        try:
            answer = await self._ask(t.submit_key(self._session.login), spec.to_dict(), type="submit")
        except NoAnswerError as exc:
            if not self._session.connected:
                raise
            waits = "the spec waits on the broker and is taken when an aggregator starts; do not submit it again"
            raise NoAnswerError(f"{exc} {waits}") from exc
        for text in answer["accepted"].get("notes", ()):
            note(str(text))
        return str(answer["accepted"]["job"])

    async def abort(self, job: str, reason: str | None) -> None:
        """End a running job. Raises RefusedError when there is none of that id."""
        await self._ask(t.abort_key(job), {"reason": reason} if reason else {}, type="abort")

    async def forget(self, job: str) -> int:
        """Delete a job that has ended; the bytes that its files had. Raises RefusedError when it has not ended."""
        answer = await self._ask(t.abort_key(job), {"forget": True}, type="forget")
        return int(answer["forgotten"]["disk_bytes"])

    async def ended(self) -> list[dict[str, Any]]:
        """Jobs that can be forgotten, the one that ended first, first: job, state, ended_at, disk_bytes."""
        answer = await self._ask(t.QUERY_KEY, {"what": "ended"}, type="query")
        return list(answer["ended"])

    async def jobs(self) -> list[dict[str, Any]]:
        """All jobs, oldest first."""
        answer = await self._ask(t.QUERY_KEY, {"what": "jobs"}, type="query")
        return list(answer["jobs"])

    async def job(self, job: str) -> dict[str, Any]:
        """One job with its spec, sites and result. Raises RefusedError when there is none of that id."""
        answer = await self._ask(t.QUERY_KEY, {"what": "job", "job": job}, type="query")
        return dict(answer["job"])

    async def sites(self) -> list[dict[str, Any]]:
        """All sites that have joined since the aggregator started."""
        answer = await self._ask(t.QUERY_KEY, {"what": "sites"}, type="query")
        return list(answer["sites"])

    async def events(self, job: str, *, submitted_at: float) -> AsyncIterator[Event]:
        """Events of a job from its submission on, for ever, also over an outage of the broker.

        `submitted_at` is what the aggregator says of the job: a time of the same clock as those of the events.
        """
        self._session.give_up_after = None
        reader = ModelLogReader(self._session, t.EVENTS, prefetch=EVENTS_PREFETCH)
        newest = await reader.newest(kind=EVENT_TYPE)
        start: Start = "first"
        if newest is not None:
            start = await reader.back_to(
                lambda record: _said_at(record) < submitted_at - EARLIER_S,
                newest=newest.offset,
                records=EVENTS_PREFETCH,
            )
        async with aclosing(reader.follow(start)) as records:
            async for record in records:
                event = _event(record.envelope)
                if event is not None and event.job == job:
                    yield event

    async def _ask(self, key: str, body: Mapping[str, Any], *, type: str) -> dict[str, Any]:
        data = json.dumps(body).encode()
        answer = await request(self._session, t.JOBS, key, data, timeout=self._timeout, type=type)
        content: dict[str, Any] = json.loads(answer.body)
        if "rejected" in content:
            problems = [Problem(**error) for error in content["rejected"]["errors"]]
            if type == "submit":
                raise JobSpecError(problems)
            raise RefusedError("; ".join(p.message for p in problems))
        return content


def _event(record: Envelope) -> Event | None:
    """What a record says; None for one that is no event of this release."""
    try:
        event = mail.from_envelope(record)
    except ProtocolError:
        return None
    return event if isinstance(event, Event) else None


def _said_at(record: Envelope) -> float:
    """When the aggregator said it; nothing says that a record which cannot be read is old."""
    event = _event(record)
    return math.inf if event is None else event.at
