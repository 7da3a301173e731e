"""One supervised connection: connects, notices loss, connects again with back-off. Nothing is restored behind a back.

aio_pika.connect_robust is not used: it was seen to hang for ever while restoring, and to replay a stream from its
first offset. Here a session only keeps a link up. Whoever uses it (publisher, consumer, stream reader) asks for a
channel when it needs one, waits while the link is down, and rebuilds what it had from its own records.

A daemon opens three sessions, for bulk publishing, bulk consuming and control: behind bulk data on one connection a
control message waits for seconds, and a connection that publishes into a memory alarm also stops consuming.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from fedbus.bus.dial import Dialer, Manner
from fedbus.bus.envelope import Envelope
from fedbus.bus.link import Channel, Link
from fedbus.bus.url import BrokerUrl
from fedbus.errors import BusError, LoginError, SettingsError, UnreachableError

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

log = structlog.get_logger("fedbus.bus")

# The broker gives a silent client up after 2 to 3 heartbeats; a process that stalls for a minute survives 30 s.
HEARTBEAT = timedelta(seconds=30)
# A healthy broker answers in milliseconds; on a 1 Mbit/s uplink an answer may queue behind a 1 MiB chunk for 8 s.
ANSWER_WITHIN = timedelta(seconds=30)


class LinkState(StrEnum):
    """What a session tells its owner. Also the names of its log lines, after `broker `."""

    CONNECTED = "connected"
    LOST = "lost"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    BLOCKED = "blocked"


OnState = Callable[[LinkState, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Growing pauses with jitter, so that sites do not come back all at once after a broker restart.

    Not a retry library: those retry a call, here a state (up, down, blocked) is kept and told, once per attempt.
    """

    first: timedelta = timedelta(seconds=1)
    most: timedelta = timedelta(seconds=30)

    def pauses(self) -> Iterator[float]:
        """Seconds, for ever: each is drawn from the upper half of a ceiling that doubles from `first` to `most`."""
        ceiling = self.first.total_seconds()
        while True:
            yield random.uniform(ceiling / 2, ceiling)
            ceiling = min(2 * ceiling, self.most.total_seconds())


# After the loss of a channel: the first retry is nearly at once, the session's own back-off does the rest.
QUICK = Backoff(first=timedelta(milliseconds=50), most=timedelta(seconds=5))


def _as_it_is(envelope: Envelope) -> Envelope:
    return envelope


class Session:
    """A connection to the broker that comes back.

    `async with Session(url, name="site-a/control") as session:` starts connecting at once and does not wait; the
    block ends with LoginError when the broker refuses the first login (with `retry_login` it is tried again, as is
    every later refusal), and with UnreachableError when the link stays down for `give_up_after` (never, when None).
    `give_up_after` may be changed at any time. `on_state` is called in the event loop on every change, with words for
    people; it must not raise.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        identity: Identity | None = None,
        outgoing: Callable[[Envelope], Envelope] = _as_it_is,
        on_state: OnState | None = None,
        give_up_after: timedelta | None = None,
        retry_login: bool = False,
        backoff: Backoff | None = None,
        answer_within: timedelta = ANSWER_WITHIN,
        follows: Session | None = None,
    ) -> None:
        """Raises SettingsError when `url` is no AMQP URL, or its login is not the one that is given.

        With an `identity` its certificate logs in. It is read anew at each connect: one that was renewed on disk counts
        from the next connect on. `outgoing` signs what is published, each time that it is sent, see `Post`. `name` is
        what the broker's operator sees. A link that leaves a call without answer for `answer_within` is taken for
        half-open and replaced. A session that `follows` another tries only while that one is connected: an outage of
        the broker is then told once, not by every session of a daemon.
        """
        self.url = BrokerUrl.parse(url)
        self._identity = identity
        self.outgoing = outgoing
        _check_login(self.url, identity)
        self.name = name
        self.backoff = backoff or Backoff()
        self._on_state = on_state
        self.give_up_after = give_up_after
        self._retry_login = retry_login
        self._follows = follows
        self.place = self.url
        """Where the link leads, or led: one of the broker's places."""
        self._dialer = Dialer(
            self.url,
            identity,
            Manner(
                name=name,
                heartbeat_s=int(HEARTBEAT.total_seconds()),
                answer_s=answer_within.total_seconds(),
                on_blocked=self._note_blocked,
            ),
        )
        self._group = asyncio.TaskGroup()
        self._link: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.links = 0
        """How often the link has come up; more than before: what was known of the broker may be so no longer."""
        self._blocked_watched = False

    @property
    def login(self) -> str:
        """Certificate's name or user of the URL: the broker checks `user_id` of every message against it."""
        return self.url.user if self._identity is None else self._identity.name

    @property
    def connected(self) -> bool:
        return self._link.done() and not self._link.result().lost.done()

    @property
    def broker(self) -> str:
        """Product and version of the broker; "" while the link is not up."""
        return self._link.result().broker if self.connected else ""

    @property
    def sent_bytes(self) -> int:
        """Bytes that the broker has acknowledged on the link that is up; 0 while none is."""
        return self._link.result().sent_bytes if self.connected else 0

    @property
    def link_age_s(self) -> float:
        """How long the link has been up; 0.0 while it is not."""
        return asyncio.get_running_loop().time() - self._link.result().opened_at if self.connected else 0.0

    @property
    def blocked(self) -> bool:
        """True while the broker takes no publishes (memory or disk alarm); known only after a publish was tried."""
        return self.connected and self._link.result().blocked

    async def ready(self) -> None:
        """Wait until the link is up."""
        await self._up()

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel, waiting for the link first. Raises ConnectionLostError when the link goes while it opens."""
        link = await self._up()
        return await link.channel(confirms=confirms)

    async def _up(self) -> Link:
        while True:
            link = await asyncio.shield(self._link)
            if not link.lost.done():
                return link
            await asyncio.sleep(0)  # it is lost, and the supervisor has not replaced it yet

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._supervisor = self._group.create_task(self._supervise(), name=f"broker session {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.cancel()
        try:
            await self._group.__aexit__(kind, exc, trace)
        except BaseExceptionGroup as group:
            # Callers expect the one error, not a group of one.
            if group.exceptions[0] is not exc:
                raise group.exceptions[0] from None

    async def _supervise(self) -> None:
        while True:
            link = await self._connect()
            try:
                self.links += 1
                self._link.set_result(link)
                self._tell(LinkState.CONNECTED, f"{self.place} as {self.name}")
                why = await asyncio.shield(link.lost)
            finally:
                self._link = asyncio.get_running_loop().create_future()
                await link.close()
            self._tell(LinkState.LOST, f"{self.place}: {why}")
            self._retry_login = True
            # A broker that accepts and closes at once must not be asked in a tight loop.
            await asyncio.sleep(next(self.backoff.pauses()))

    async def _connect(self) -> Link:
        now = asyncio.get_running_loop().time
        began, pauses = now(), self.backoff.pauses()
        failure: BusError
        while True:
            if self._follows:
                await self._follows.ready()
            try:
                link, self.place = await self._dialer.open()
                return link
            except LoginError as exc:
                if not self._retry_login:
                    raise
                state, failure = LinkState.REFUSED, exc
            except UnreachableError as exc:
                state, failure = LinkState.UNREACHABLE, exc
            pause = next(pauses)
            limit = self.give_up_after
            if limit is not None and now() + pause - began > limit.total_seconds():
                raise failure
            self._tell(state, f"{failure}; next try in {pause:.1f} s")
            await asyncio.sleep(pause)

    # ------------------------------------------------------------------ telling

    def _note_blocked(self, link: Link) -> None:
        if not self._blocked_watched:
            self._blocked_watched = True
            self._group.create_task(self._watch_blocked(link), name=f"broker alarm {self.name}")

    async def _watch_blocked(self, link: Link) -> None:
        """Tell when an alarm begins and ends; publishes wait by themselves."""
        self._tell(LinkState.BLOCKED, f"{self.place}: memory or disk alarm, publishes wait until the broker has room")
        await link.unblocked()
        self._blocked_watched = False
        if not link.lost.done():
            self._tell(LinkState.CONNECTED, f"{self.place}: takes publishes again")

    def _tell(self, state: LinkState, words: str) -> None:
        say = log.info if state is LinkState.CONNECTED else log.warning
        say(f"broker {state}", session=self.name, detail=words)
        if self._on_state:
            self._on_state(state, words)


def _check_login(url: BrokerUrl, identity: Identity | None) -> None:
    """A kit's certificate or a user logs in, never both and never neither. Raises SettingsError."""
    if identity is None and not url.user:
        raise SettingsError(
            f"broker URL {url} has no user, so a certificate must log in: set FEDBUS_KIT (or --kit) to the folder of "
            "the kit, or write user:password@ before the host"
        )
    if identity is not None and url.user:
        raise SettingsError(
            f"broker URL {url} has a user, and the kit {identity.kit} logs in by its certificate as {identity.name!r}: "
            f"write amqps://{url.address}/{url.vhost}, or unset FEDBUS_KIT"
        )
