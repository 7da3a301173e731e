"""Whose updates the broker brings into a job's queue, and who is held off for a while.

A job has one updates queue, so what one site floods it with stands before what all others send, however quickly the
aggregator drops it. Therefore the broker routes the updates of each site by a binding of its own: what sites that take
no part send never comes in, and a site that sends too much that brings nothing (copies, what is against the protocol,
updates that are refused unread) loses its binding for HELD_OFF_S. The broker returns its messages meanwhile; its worker
waits and sends again, so nothing is lost. What the others wait for is what was routed until then.

A queue for each job and site would end the waiting altogether, at the price of sites x jobs quorum queues.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from fedbus.aggregator.incoming.allowance import Allowance
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import declare, unbind
from fedbus.errors import NoSuchQueueError
from fedbus.store.ledger_schema import ANYBODY

# What costs the aggregator a few tenths of a second. A site whose link broke may resend more: it goes on 5 s later.
USELESS_RATE, USELESS_BURST = 50.0, 300.0
BYTES_A_MESSAGE = 1 << 20
HELD_OFF_S = 5.0
LOOK_S = 1.0

TellHeldOff = Callable[[str, str], Awaitable[None]]


class Entrance:
    """Of one job. Run `run` as a task; `held_off(site, text)` is told, once a minute at most.

    `sites` are those whose updates an earlier process let in.
    """

    def __init__(
        self,
        job: str,
        *,
        session: Session,
        held_off: TellHeldOff,
        sites: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._session = session
        self._held_off = held_off
        self._clock = clock
        self._sites = set(sites)
        self._useless = Allowance(rate=USELESS_RATE, burst=USELESS_BURST)
        self._shut: dict[str, float] = {}
        self._to_shut: set[str] = set()
        self._awake = asyncio.Event()

    async def open(self, sites: Iterable[str]) -> None:
        """From now on the updates of these sites come in; returns when the broker routes them."""
        new = set(sites) - self._sites
        self._sites |= new
        await self._bind(new)

    def useless(self, site: str, messages: int, size_bytes: int) -> None:
        """A site sent what brings nothing: so many messages, with so many bytes in their bodies."""
        if site not in self._sites:
            return
        cost = messages + size_bytes / BYTES_A_MESSAGE
        if not self._useless.take(site, cost, now=self._clock()) and site not in self._shut:
            self._to_shut.add(site)
            self._awake.set()

    async def run(self) -> None:
        """Hold sites off and let them in again, for ever."""
        bound_at = self._session.links
        await self._bind(self._sites)
        if ANYBODY not in self._sites:  # an earlier release bound that for every job
            await unbind(self._session, t.Topology(bindings=(t.updates_from_anybody(self._job),)))
        while True:
            if (links := self._session.links) != bound_at:
                # a broker that was killed may have lost what was bound within its last second
                await self._bind(self._sites - self._shut.keys())
                bound_at = links
            await self._look()
            self._awake.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._awake.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """Nothing comes in any more: the broker returns what sites send."""
        bindings = tuple(self._binding(site) for site in self._sites)
        await unbind(self._session, t.Topology(bindings=(*bindings, t.updates_from_anybody(self._job))))

    async def _look(self) -> None:
        now = self._clock()
        over = {site for site, until in self._shut.items() if now >= until}
        for site in over:
            del self._shut[site]
        await self._bind(over)
        while self._to_shut:
            site = self._to_shut.pop()
            self._shut[site] = now + HELD_OFF_S
            await unbind(self._session, t.Topology(bindings=(self._binding(site),)))
        for site, times in self._useless.to_tell(now=now).items():
            await self._held_off(
                site,
                f"{site} is held off: {times} messages too many that bring nothing (copies, or against the protocol);"
                f" the broker takes no updates of it for {HELD_OFF_S:g} s each time, and its worker sends them again",
            )

    async def _bind(self, sites: Iterable[str]) -> None:
        bindings = tuple(self._binding(site) for site in sites)
        if not bindings:
            return
        with suppress(NoSuchQueueError):  # not declared yet, and `run` binds again; or the job is over
            await declare(self._session, t.Topology(bindings=bindings))

    def _binding(self, site: str) -> t.BindingSpec:
        return t.updates_from_anybody(self._job) if site == ANYBODY else t.updates_from(self._job, site)
