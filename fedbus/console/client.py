"""Ask the aggregator over the bus, and follow what happens.

Every question is a message on `fedbus.jobs` with a direct reply; nothing here is special to fedbus, any AMQP client can
do the same (see `fedbus.aggregator.desk.requests`).
"""

from __future__ import annotations

import json
import math
import secrets
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from fedbus.bus import topology as t
from fedbus.bus.connection import OnState, Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.rpc import request
from fedbus.bus.stream import Start, StreamReader
from fedbus.console.fetch import (
    AskedInVainError,
    Fetched,
    Open,
    Progress,
    as_it_came,
    fetch,
    no_progress,
)
from fedbus.console.settings import LOGIN, SubmitterSettings
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import requests as q
from fedbus.core.protocol.messages import JOB_HEADER, Event, job_id
from fedbus.core.spec.head import JobSpec
from fedbus.errors import (
    ConnectionLostError,
    FedbusError,
    JobSpecError,
    NoAnswerError,
    Problem,
    ProtocolError,
    UnansweredError,
)

A = TypeVar("A")
EVENTS_PREFETCH = 64
EVENT_TYPE = "event"
PATIENCE = timedelta(seconds=15)
"""For an answer to who watches."""
# The aggregator's clock may have been set back by as much since then.
EARLIER_S = 60.0


class Client:
    """A connection as submitter; an async context manager.

    With `on_state` it lasts: outages and refused logins are told there and outlived, see `bus.Session`.
    """

    def __init__(self, settings: SubmitterSettings, *, on_state: OnState | None = None) -> None:
        self._on_state = on_state
        self._timeout = timedelta(seconds=settings.timeout_s)
        self._url = settings.url_for(LOGIN)
        self._identity = settings.identity()
        self._stack = AsyncExitStack()
        self._post = Post(self._identity)

    async def __aenter__(self) -> Self:
        session = Session(
            self._url,
            name="submitter",
            identity=self._identity,
            outgoing=self._post.outgoing,
            give_up_after=self._timeout if self._on_state is None else None,
            retry_login=self._on_state is not None,
            on_state=self._on_state,
        )
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._stack.__aexit__(*exc)

    @property
    def connected(self) -> bool:
        """Whether there is a link to the broker now."""
        return self._session.connected

    @property
    def broker(self) -> str:
        """Where the broker is, in words."""
        url = self._session.url
        return f"{url.address}/{url.vhost}"

    def stay(self) -> None:
        """From now on outlast an outage of the broker, as who watches does, and give each answer `PATIENCE`.

        Questions that nobody takes stay in the queue, and the aggregator answers each when it comes back: few that wait
        long are better than many that do not.
        """
        self._session.give_up_after = None
        self._timeout = PATIENCE

    async def ready(self) -> None:
        """Wait until the link to the broker is up. Raises BusError, at `__aexit__`, when it does not come in time."""
        await self._session.ready()

    async def submit(
        self,
        spec: JobSpec,
        *,
        job: str | None = None,
        published: Callable[[UnansweredError], None] | None = None,
        note: Callable[[str], object] = lambda text: None,
    ) -> str:
        """Submit a job under the id `job`, or a new one, and return its id. JobSpecError when it is refused.

        Raises UnansweredError when the broker has the spec and nobody answers in time: it waits in its queue. With
        `published` that is told there instead, and the answer is waited for however long. `note` is called with what
        the aggregator remarks on the job.
        """
        job = job or new_job_id(spec)
        message_id = uuid.uuid4().hex
        try:
            answer = await self._submit(spec, job, message_id, self._timeout)
        except UnansweredError as exc:
            waits = _waits(exc, job)
            if published is None:
                raise waits from exc
            published(waits)
            answer = await self._submit_until_answered(spec, job, message_id)
        except ConnectionLostError as exc:
            raise ConnectionLostError(f"{exc}: `fedbus show {job}` says whether the job has arrived") from exc
        for text in answer.notes:
            note(text)
        return answer.job

    async def _submit_until_answered(self, spec: JobSpec, job: str, message_id: str) -> a.Accepted:
        """The same message again, which is the same job: the place for the answer to the first is gone."""
        self._session.give_up_after = None
        while True:
            with suppress(UnansweredError, ConnectionLostError):
                return await self._submit(spec, job, message_id, None)

    async def _submit(self, spec: JobSpec, job: str, message_id: str, timeout: timedelta | None) -> a.Accepted:
        key = t.submit_key(self._session.login)
        data = json.dumps(spec.to_dict()).encode()
        headers = {JOB_HEADER: job}
        answer = await request(
            self._session, t.JOBS, key, data, timeout=timeout, type="submit", message_id=message_id, headers=headers
        )
        return _content(a.Accepted, self._post.answered(answer), JobSpecError)

    async def abort(self, job: str, reason: str | None) -> None:
        """End a running job. Raises AskedInVainError when there is none of that id."""
        await self._ask(q.Abort(job=job, reason=reason or ""), a.Aborted)

    async def forget(self, job: str) -> int:
        """Delete a job that has ended; the bytes that its files had. Raises AskedInVainError when it has not ended."""
        return (await self._ask(q.Forget(job=job), a.Forgotten)).disk_bytes

    async def ended(self) -> list[a.EndedJob]:
        """Jobs that can be forgotten, the one that ended first, first."""
        return list((await self._ask(q.EndedQuery(), a.Ended)).ended)

    async def audit_heads(self) -> list[a.AuditHead]:
        """The newest heads of the sites' audit logs by site and job; of each site the newest first."""
        return list((await self.what_left()).heads)

    async def what_left(self) -> a.AuditHeads:
        """The newest heads of the sites' audit logs, and what came from the sites, by site and job."""
        return await self._ask(q.AuditQuery(), a.AuditHeads)

    async def jobs(self) -> list[a.JobLine]:
        """All jobs, oldest first."""
        return list((await self._ask(q.JobsQuery(), a.Jobs)).jobs)

    async def job(self, job: str) -> a.JobDetail:
        """One job with its spec, sites and result. Raises AskedInVainError when there is none of that id."""
        return await self._ask(q.JobQuery(job=job), a.JobDetail)

    async def get(self, job: str, version: str | int, to: Path, *, progress: Progress = no_progress) -> Fetched:
        """Write the params of a version, `last`, `best` or a number, to a safetensors file.

        It is there whole or, when an error is raised, as it was before: AskedInVainError says which versions there are.
        """
        ask = partial(self._ask, kind=a.ParamsOffer)
        guard = self._post.guard
        keys = {} if guard is None else guard.seal_keys.texts()
        wanted = q.ParamsQuery(job=job, version=version, seal_keys=keys)
        return await fetch(ask, self._ask_part, wanted, to, progress, opener=partial(_opener, self._post))

    async def _ask_part(self, query: q.PartQuery, allowed: timedelta) -> Envelope:
        answer = await self._answer(query, self._timeout + allowed)
        if answer.content_type == "application/json":
            _content(a.Rejected, answer, _in_vain)
        return answer

    async def history(self, job: str) -> list[a.VersionLine]:
        """One line a version, from version 0 on: when, from whom, what it scored."""
        lines: list[a.VersionLine] = []
        more = True
        while more:
            after = lines[-1].version if lines else q.BEFORE_ALL
            answer = await self._ask(q.HistoryQuery(job=job, after=after), a.History)
            lines += answer.history
            more = answer.more and bool(answer.history)
        return lines

    async def sites(self) -> list[a.SiteLine]:
        """All sites that have joined since the aggregator started."""
        return list((await self._ask(q.SitesQuery(), a.Sites)).sites)

    async def events(self, job: str, *, submitted_at: float) -> AsyncIterator[Event]:
        """Events of a job from its submission on, for ever, also over an outage of the broker.

        `submitted_at` is what the aggregator says of the job: a time of the same clock as those of the events.
        """
        self._session.give_up_after = None
        reader = StreamReader(self._session, t.EVENTS, prefetch=EVENTS_PREFETCH)
        newest = await reader.newest(kind=EVENT_TYPE)
        start: Start = "first"
        if newest is not None:
            start = await reader.back_to(
                lambda record: _said_at(self._post, record) < submitted_at - EARLIER_S,
                newest=newest.offset,
                records=EVENTS_PREFETCH,
            )
        async with aclosing(reader.follow(start)) as records:
            async for record in records:
                event = _event(self._post, record.envelope)
                if event is not None and event.job == job:
                    yield event

    async def all_events(self, *, since: float, most: int) -> AsyncGenerator[Event | None, None]:
        """Events of all jobs from a moment on, for ever; None once those have come that were there at first.

        since: seconds since the epoch, of the aggregator's clock. At most about so many of the past are read.
        """
        self._session.give_up_after = None
        reader = StreamReader(self._session, t.EVENTS, prefetch=EVENTS_PREFETCH)
        newest = await reader.newest(kind=EVENT_TYPE)
        start: Start = "first"
        if newest is not None:
            found = await reader.back_to(
                lambda record: _said_at(self._post, record) < since, newest=newest.offset, records=EVENTS_PREFETCH
            )
            start = max(0 if found == "first" else int(found), newest.offset - most)
        else:
            yield None
        async with aclosing(reader.follow(start)) as records:
            async for record in records:
                event = _event(self._post, record.envelope)
                if event is not None:
                    yield event
                if newest is not None and record.offset >= newest.offset:
                    newest = None
                    yield None

    async def may_submit(self) -> bool:
        """Whether the broker lets this login submit and abort jobs. Raises BusError."""
        from fedbus.bus.permissions import Permission, may_publish

        key = t.submit_key(self._session.login)
        return await may_publish(self._session, t.JOBS, key) is Permission.ALLOWED

    async def _ask(self, asked: q.Request, kind: type[A]) -> A:
        return _content(kind, await self._answer(asked, self._timeout), _in_vain)

    async def _answer(self, asked: q.Request, timeout: timedelta) -> Envelope:
        key, type = address(asked)
        data = json.dumps(q.body_of(asked)).encode()
        with _question() if isinstance(asked, q.Query) else nullcontext():
            return self._post.answered(await request(self._session, t.JOBS, key, data, timeout=timeout, type=type))


def _opener(post: Post, offer: a.ParamsOffer) -> Open:
    """What opens the parts of an offer. Raises SealError when they are not sealed to this kit."""
    guard = post.guard
    if guard is None:
        return as_it_came
    from fedbus.trust.sealed_params import SealedParts

    sealed = SealedParts.offered(
        offer.key,
        guard.seal_keys,
        federation=guard.identity.federation,
        login=guard.identity.name,
        of=offer.of,
        size_bytes=offer.size_bytes,
        part_bytes=offer.part_bytes,
    )
    return lambda answer, offset: sealed.open(answer.headers, answer.body, offset)


def address(request: q.Request) -> tuple[str, str]:
    """The routing key of a request, and the `type` of its message."""
    match request:
        case q.Abort(job=job):
            return t.abort_key(job), "abort"
        case q.Forget(job=job):
            return t.abort_key(job), "forget"
        case _:
            return t.QUERY_KEY, "query"


@contextmanager
def _question() -> Iterator[None]:
    """Inside, what nobody answers in time is no answer: nothing is done later that could be waited for."""
    try:
        yield
    except UnansweredError as exc:
        raise NoAnswerError(str(exc)) from exc


def _event(post: Post, record: Envelope) -> Event | None:
    """What a record says; None for one that is no event of this release."""
    try:
        event = post.from_envelope(record, over=t.EVENTS)
    except ProtocolError:
        return None
    return event if isinstance(event, Event) else None


def _said_at(post: Post, record: Envelope) -> float:
    """When the aggregator said it; nothing says that a record which cannot be read is old."""
    event = _event(post, record)
    return math.inf if event is None else event.at


def new_job_id(spec: JobSpec) -> str:
    """An id that no other job has."""
    return job_id(spec.name, secrets.token_hex(4))


def _content(kind: type[A], answer: Envelope, refused: Callable[[Sequence[Problem]], FedbusError]) -> A:
    content: dict[str, Any] = json.loads(answer.body)
    if "rejected" in content:
        raise refused(a.from_json(a.Rejected, content).errors)
    return a.from_json(kind, content)


def _in_vain(problems: Sequence[Problem]) -> AskedInVainError:
    return AskedInVainError("; ".join(problem.message for problem in problems))


def _waits(exc: UnansweredError, job: str) -> UnansweredError:
    return UnansweredError(
        f"{exc} job {job} is published and waits on the broker, an aggregator takes it when it starts: do not submit "
        f"it again, ask `fedbus show {job}` (no such job then: it was refused)"
    )
