"""Whose updates come in, on a real broker: those of sites that were let in, and of nobody who floods the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from fedbus.aggregator.incoming.entrance import HELD_OFF_S, USELESS_BURST, Entrance
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import declare, ready_messages, unbind
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.errors import UnroutableError

JOB = "heart"


class Door:
    """The entrance of a job, at a time that tests set, and the logins of two sites before it."""

    def __init__(self, control: Session, sites: dict[str, Session]) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, str]] = []
        self.control = control
        self.entrance = self.anew()
        self._publishers = {name: Publisher(s, routes_return=timedelta(0)) for name, s in sites.items()}
        self._sent = 0

    def anew(self, *sites: str) -> Entrance:
        return Entrance(JOB, session=self.control, held_off=self._told, sites=sites, clock=lambda: self.now)

    async def _told(self, site: str, text: str) -> None:
        self.told.append((site, text))

    async def taken(self, site: str, job: str = JOB) -> bool:
        """Whether the broker takes an update of the site."""
        self._sent += 1
        key = t.update_key(job, site)
        envelope = Envelope(exchange=t.UPDATES, routing_key=key, type="x", body=b"x", message_id=str(self._sent))
        try:
            await self._publishers[site].publish(envelope)
        except UnroutableError:
            return False
        return True

    async def until(self, site: str, taken: bool) -> None:
        async with asyncio.timeout(30):
            while await self.taken(site) is not taken:
                pass


@pytest.fixture
async def door(vhost: Any) -> AsyncIterator[Door]:
    async with (
        Session(vhost.url("aggregator"), name="control") as control,
        Session(vhost.url("site-a"), name="a") as site_a,
        Session(vhost.url("site-b"), name="b") as site_b,
    ):
        await declare(control, t.job_updates(JOB))
        yield Door(control, {"site-a": site_a, "site-b": site_b})


@asynccontextmanager
async def watched(entrance: Entrance) -> AsyncIterator[None]:
    task = asyncio.create_task(entrance.run())
    try:
        yield
    finally:
        task.cancel()


async def test_only_what_a_site_of_the_job_sends_comes_in(door: Door) -> None:
    await door.entrance.open({"site-a"})
    assert await door.taken("site-a")
    assert not await door.taken("site-b")
    assert await ready_messages(door.control, t.updates_queue(JOB)) == 1


async def test_a_site_that_floods_is_held_off_for_a_while_and_the_others_are_not(door: Door) -> None:
    await door.entrance.open({"site-a", "site-b"})
    async with watched(door.entrance):
        # when a site sends a thousand copies and more
        for _ in range(int(USELESS_BURST) + 1):
            door.entrance.useless("site-a", 1, 0)
        await door.until("site-a", taken=False)
        # then the others are taken on, and people are told once
        async with asyncio.timeout(30):
            while not door.told:  # said once the broker has confirmed it, which is later than the first refusal
                assert await door.taken("site-b")
        assert await door.taken("site-b")
        ((site, text),) = door.told
        assert site == "site-a"
        assert "held off" in text
        # and it comes in again after a while
        door.now += HELD_OFF_S
        await door.until("site-a", taken=True)


async def test_large_messages_that_bring_nothing_count_more(door: Door) -> None:
    await door.entrance.open({"site-a"})
    async with watched(door.entrance):
        for _ in range(40):
            door.entrance.useless("site-a", 1, 9 << 20)
        await door.until("site-a", taken=False)


async def test_a_restart_lets_in_who_took_part_and_no_longer_everybody(door: Door) -> None:
    # given a queue as an earlier release bound it
    await declare(door.control, t.Topology(bindings=(t.updates_from_anybody(JOB),)))
    assert await door.taken("site-b")
    # when this release goes on with it
    async with watched(door.anew("site-a")):
        # then
        await door.until("site-b", taken=False)
        assert await door.taken("site-a")


async def test_what_a_killed_broker_lost_is_bound_again(door: Door, vhost: Any) -> None:
    await door.entrance.open({"site-a"})
    await declare(door.control, t.Topology(bindings=(t.updates_from_anybody(JOB),)))
    async with watched(door.entrance):
        await door.until("site-b", taken=False)  # it has begun
        # given a binding that is gone, when the link comes anew
        await unbind(door.control, t.Topology(bindings=(t.updates_from(JOB, "site-a"),)))
        assert not await door.taken("site-a")
        vhost.node.ctl("close_all_connections", "--vhost", vhost.vhost, "test")
        # then
        await door.until("site-a", taken=True)


async def test_after_the_end_of_a_job_nothing_comes_in(door: Door) -> None:
    await door.entrance.open({"site-a"})
    await door.entrance.close()
    assert not await door.taken("site-a")
