"""How many events and receipts a second the aggregator says, one message unconfirmed at a time and with its window.

A private node with the queues of enrolled sites that read nothing; each kind alone, until the last one is confirmed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fedbus.aggregator.voice.announcer import UNCONFIRMED, Announcer
from fedbus.bench.figures import Row, row
from fedbus.bus.connection import Session
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.local.federation import LocalFederation

JOB = "heart"


def rows(*, sites: int, messages: int) -> list[Row]:
    """Return messages per second for each kind and window."""
    names = tuple(f"site-{number:03}" for number in range(sites))
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder,
        LocalFederation(Path(folder), sites=names) as federation,
    ):
        federation.start_aggregator().wait_for("aggregator-ready")  # it declares what is published to
        return asyncio.run(_measure(federation.url("aggregator"), names, messages))


async def _measure(url: str, names: Sequence[str], messages: int) -> list[Row]:
    found: list[Row] = []
    async with Session(url, name="bench") as session:
        await session.ready()
        publisher = Publisher(session)
        for window in (1, UNCONFIRMED):
            announcer = Announcer(publisher, post=Post(), dead=publisher, keep=_kept, unconfirmed=window)
            running = asyncio.create_task(announcer.run())
            for what, say in (("events", _event), ("receipts", _receipt)):
                began = time.perf_counter()
                for number in range(messages):
                    await say(announcer, names[number % len(names)], number)
                await announcer.drained()
                case = f"{what}, {window} unconfirmed, {len(names)} sites"
                found.append(row(case, messages / (time.perf_counter() - began), "1/s"))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return found


async def _event(announcer: Announcer, site: str, number: int) -> None:
    await announcer.event(JOB, events.VersionScored(site=site, version=number))


async def _receipt(announcer: Announcer, site: str, number: int) -> None:
    update_id = f"{site}:0123abcd:{number}"
    await announcer.tell(site, m.Receipt(job=JOB, update_id=update_id, outcome=m.Outcome.FOLDED))


async def _kept(event: m.Event) -> None:
    pass
