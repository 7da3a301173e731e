"""Logged in: what this login may do there, who else is there, and whether the broker takes messages at all.

Nothing is published and nothing is read: see `fedbus.bus.permissions` for how a broker tells all the same.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.log_readers import MOST_SITES, readers_of
from fedbus.bus.permissions import Permission, may_publish, may_read
from fedbus.bus.stream import StreamReader
from fedbus.doctor.finding import Area, Finding, Reporter
from fedbus.doctor.kit import span
from fedbus.errors import BusError, LoginError, NoSuchQueueError, SettingsError, TlsError, UnreachableError
from fedbus.trust.signing import CLOCKS
from fedbus.trust.subjects import Role

LOGIN = Reporter(Area.LOGIN, "login")
PERMISSIONS = Reporter(Area.LOGIN, "permissions")
BROKER = Reporter(Area.BROKER, "broker")
ALARM = Reporter(Area.BROKER, "alarm")
SIZE = Reporter(Area.BROKER, "message size")
QUEUE = Reporter(Area.BROKER, "own queue")
AGGREGATOR = Reporter(Area.BROKER, "aggregator")

BEHIND = Reporter(Area.MACHINE, "aggregator's clock")
SET = "have a time server keep both clocks: timedatectl set-ntp true"
EVENT_TYPE = "event"
QUIET = timedelta(seconds=1)
JITTER = timedelta(seconds=30)
YEAR_3000 = 32_503_680_000

CHUNK_BYTES = (1 << 20) + (64 << 10)
"""A chunk of the default size and what stands around it."""
OLDEST = (3, 10)
JOB = "fedbus-doctor"
SECRET = "0" * 32
PROVISION = "have the broker's definitions made and imported anew (`fedbus broker definitions`, `fedbus provision`)"
STOLEN = "find that machine: two sites must not share a name; if nobody knows it, have this login revoked"

Ask = Callable[[Session], Awaitable[Permission]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that a login must be able to do, or must not."""

    what: str
    ask: Ask
    must: bool = True


def _publish(exchange: str, key: str, *, must: bool = True) -> Question:
    return Question(
        what=f"publish to {exchange} {key}", ask=lambda session: may_publish(session, exchange, key), must=must
    )


def _read(queue: str, *, must: bool = True) -> Question:
    return Question(what=f"read {queue}", ask=lambda session: may_read(session, queue), must=must)


def questions(role: Role, name: str, number: int | None = None) -> Sequence[Question]:
    """What a login of this role must be able to do, and a few things that would show definitions that are too wide.

    `number` is that of a site with a kit: of model logs it reads those that name it, and no others.
    """
    match role:
        case Role.SITE:
            kinds = tuple(_publish(t.SITES, t.site_key(name, kind)) for kind in t.SiteKind)
            return (
                *kinds,
                _publish(t.UPDATES, t.update_key(JOB, name)),
                _read(t.site_queue(name)),
                *_model_logs(number),
                _publish(t.SITES, t.site_key(f"{name[:30]}-other", t.SiteKind.JOIN), must=False),
                _publish(t.CONTROL, t.control_key_all(), must=False),
                _read(t.SITES, must=False),
            )
        case Role.SUBMITTER:
            return (
                _publish(t.JOBS, t.submit_key(name)),
                _publish(t.JOBS, t.QUERY_KEY),
                _read(t.EVENTS),
                _publish(t.CONTROL, t.control_key_all(), must=False),
                _read(t.JOBS, must=False),
            )
        case Role.AGGREGATOR:
            exchanges = ((t.CONTROL, t.control_key_all()), (t.MODELS, JOB), (t.EVENTS, t.event_key(JOB, JOB, JOB)))
            return (*(_publish(*each) for each in exchanges), _read(t.SITES), _read(t.JOBS), _read(t.EVENTS))
        case Role.BROKER:
            raise SettingsError("a broker has no login: examine a site, an aggregator or a submitter")


def _model_logs(number: int | None) -> Sequence[Question]:
    if number is None:
        return (_read(t.models_stream(JOB, SECRET)),)
    other = number + 1 if number + 1 < MOST_SITES else number - 1
    return (
        _read(t.models_stream(JOB, SECRET, readers_of([number]))),
        _read(t.models_stream(JOB, SECRET, readers_of([other])), must=False),
    )


async def examine_broker(
    session: Session,
    found: Callable[[Finding], None],
    *,
    role: Role,
    number: int | None = None,
    own_daemon: bool,
    within_s: float,
) -> None:
    """Everything that only a login can see.

    `number` is a site's with a kit, see `questions`; `own_daemon`: whether this machine's daemon reads its queue.
    """
    try:
        async with asyncio.timeout(within_s), session:
            await session.ready()
            found(
                LOGIN.ok(f"logged in as {session.login} at {session.place.address}, virtual host {session.url.vhost}")
            )
            found(version(session.broker))
            async for finding in _asked(session, questions(role, session.login, number), role, own_daemon):
                found(finding)
    except TimeoutError:
        found(BROKER.fail("the broker does not answer in time", "run again; if it stays so, ask the broker's operator"))
    except TlsError as exc:
        found(LOGIN.fail(str(exc), ""))
    except LoginError as exc:
        found(LOGIN.fail(str(exc), _login_fix(exc)))
    except UnreachableError as exc:
        found(BROKER.fail(str(exc), "what answers there is no broker, or one that hangs: ask its operator"))
    except BusError as exc:
        found(LOGIN.fail(str(exc), "ask the broker's operator what its log says of this connection"))


async def _asked(session: Session, asked: Sequence[Question], role: Role, own_daemon: bool) -> AsyncIterator[Finding]:
    alarm = await _alarm(session, asked[0])
    yield alarm or ALARM.ok("the broker takes messages")
    if alarm is not None:  # it answers this connection nothing more
        return
    yield await permissions(session, asked)
    yield await message_size(session, role)
    if role is Role.SITE:
        yield await _own_queue(session, own_daemon)
    if role is not Role.AGGREGATOR:
        yield await _aggregator(session)
    if role is Role.SUBMITTER:
        yield await _clock(session, time.time)


# ------------------------------------------------------------------ each of them


def version(said: str) -> Finding:
    """`said`: product and version, as the broker introduces itself."""
    number = said.rpartition(" ")[2].split(".")
    if not said.startswith("RabbitMQ") or not all(part.isdecimal() for part in number[:2]):
        return BROKER.warn(f"the broker says it is {said[:80]!r}", "fedbus is tested on RabbitMQ 3.10 and 4.x")
    if tuple(map(int, number[:2])) < OLDEST:
        return BROKER.fail(f"{said[:80]} is too old", "fedbus needs RabbitMQ 3.10 or later: have the broker updated")
    return BROKER.ok(said[:80])


async def _alarm(session: Session, first: Question) -> Finding | None:
    """A broker with an alarm tells it to who has published something, and answers nothing that comes after it."""

    async def ask() -> None:
        await first.ask(session)
        await (await session.channel()).close()

    asking = asyncio.create_task(ask(), name="ask for an alarm")
    try:
        while not (await asyncio.wait({asking}, timeout=0.2))[0]:
            if session.blocked:
                return ALARM.fail(
                    "the broker takes no messages: it has a memory or disk alarm",
                    "have its operator free memory or disk there (`rabbitmqctl status` says which)",
                )
        asking.result()
        return None
    finally:
        asking.cancel()


async def permissions(session: Session, asked: Sequence[Question]) -> Finding:
    """One line for all of them: what is lacking, else what is allowed too much."""
    lacking, missing, too_much = [], [], []
    for question in asked:
        answer = await question.ask(session)
        if question.must and answer is Permission.REFUSED:
            lacking.append(question.what)
        elif not question.must and answer is not Permission.REFUSED:
            too_much.append(question.what)
        elif question.must and answer is Permission.MISSING and JOB not in question.what:
            missing.append(question.what)
    if lacking:
        return PERMISSIONS.fail(f"{session.login} may not {'; '.join(lacking)}", PROVISION)
    if missing:
        return PERMISSIONS.fail(f"the broker lacks what {session.login} would {'; '.join(missing)}", PROVISION)
    if too_much:
        return PERMISSIONS.warn(f"{session.login} may {'; '.join(too_much)}, which it should not", PROVISION)
    return PERMISSIONS.ok(f"{session.login} may do what it must ({len(asked)} asked, nothing published)")


async def message_size(session: Session, role: Role) -> Finding:
    """Whether a whole chunk passes; the broker refuses it after it has looked at its size."""
    match role:
        case Role.SITE:
            exchange, key = t.UPDATES, t.update_key(JOB, session.login)
        case Role.SUBMITTER:
            exchange, key = t.JOBS, t.submit_key(session.login)
        case _:
            exchange, key = t.MODELS, t.models_key(JOB)
    began = asyncio.get_running_loop().time()
    if await may_publish(session, exchange, key, size_bytes=CHUNK_BYTES) is Permission.TOO_LARGE:
        return SIZE.fail(
            f"the broker refuses messages of {CHUNK_BYTES:,} bytes",
            f"have max_message_size = {t.MAX_MESSAGE_BYTES} written in its rabbitmq.conf",
        )
    took_s = asyncio.get_running_loop().time() - began
    return SIZE.ok(f"a chunk of {CHUNK_BYTES:,} bytes passes, in {took_s:.1f} s")


async def _own_queue(session: Session, own_daemon: bool) -> Finding:
    readers = await _readers(session, t.site_queue(session.login))
    if readers is None:
        return QUEUE.fail("the broker has no queue for this site", PROVISION)
    return own_queue(session.login, readers, own_daemon)


async def _aggregator(session: Session) -> Finding:
    if await _readers(session, t.SITES):
        return AGGREGATOR.ok("the aggregator is there")
    return AGGREGATOR.warn("no aggregator reads", "tell who runs it; what is sent waits on the broker")


async def _readers(session: Session, queue: str) -> int | None:
    """How many connections consume a queue; None when it does not exist."""
    channel = await session.channel()
    try:
        return await channel.consumers(queue)
    except NoSuchQueueError:
        return None
    finally:
        await channel.close()


async def _clock(session: Session, now: Callable[[], float]) -> Finding:
    """Against the aggregator's, by its newest event: a clock that is behind shows, one that is ahead does not."""
    reader = StreamReader(session, t.EVENTS, prefetch=1)
    record = await reader.newest(wait=QUIET, kind=EVENT_TYPE)
    return clock_behind(None if record is None else _said_at(record.envelope.body), now())


def _said_at(body: bytes) -> float | None:
    """When an event was said; whoever may write to the stream may have written anything."""
    try:
        said_at = json.loads(body)["at"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return said_at if isinstance(said_at, int | float) and 0 <= said_at < YEAR_3000 else None


def clock_behind(said_at: float | None, now: float) -> Finding:
    """`said_at`: when the aggregator said its newest event, by its own clock (seconds since the epoch)."""
    if said_at is None:
        return BEHIND.skipped("the aggregator has said nothing yet that this clock could be held against")
    behind = timedelta(seconds=said_at - now)
    if behind > CLOCKS:
        return BEHIND.fail(f"this clock is {span(behind)} behind the aggregator's: it refuses what is signed here", SET)
    if behind > JITTER:
        return BEHIND.warn(f"this clock is {span(behind)} behind the aggregator's, or that is ahead", SET)
    return BEHIND.ok(f"not behind the aggregator's, whose newest event is {span(behind)} old")


def own_queue(name: str, readers: int, own_daemon: bool) -> Finding:
    """`readers`: connections that consume the site's control queue."""
    if readers > (1 if own_daemon else 0):
        where = "beside this machine's daemon somebody else" if own_daemon else "a daemon that is not this machine's"
        return QUEUE.fail(f"{where} works as {name}", STOLEN)
    return QUEUE.ok(f"nobody else works as {name}")


def _login_fix(exc: LoginError) -> str:
    if "virtual host" in str(exc):
        return "correct the virtual host at the end of the broker URL, or have this login admitted to it"
    return "correct the broker URL (FEDBUS_BROKER_URL), or ask the federation whether this login still exists"
