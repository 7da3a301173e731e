"""What the status page costs: memory beside the aggregator, and a page of its own that reads a long job of many sites.

A real broker and aggregator; the events of the job are made up and published into the real stream under the
aggregator's login. Then LOOKING browsers look on, one more never reads, and LIVE_PER_S events come each second.

    memory     resident, of an aggregator without the page and of one with it that has read all events and was looked at
    processor  of `fedbus web` per event that it catches up with, and as a share of one core while they look
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from fedbus.bench.figures import MIB, Row, resident_bytes, row
from fedbus.bench.long_job import long_job
from fedbus.bus.connection import Session
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.core.protocol.messages import Event
from fedbus.core.spec.training import TrainingSpec
from fedbus.local.federation import Daemon, LocalFederation, wait_until
from fedbus.web.beside import READY

LOOKING = 200
LIVE_PER_S, LIVE_S = 100, 20
WINDOW = 256
POLL_S = 1.0
QUICKLY_S = 1e-4
"""Between two events by their own times: all after the submission, so that a page that starts later finds the first."""
MEMORY_GOAL_MIB = 40.0
FIRST_ANSWER_GOAL_MS = 150.0
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT = timedelta(minutes=5)
SPEC = {
    "name": "long",
    "task": "digits",
    "min_sites": 2,
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 1_000_000},
}


def rows(*, events: int, sites: int, looking: int = LOOKING) -> Iterator[Row]:
    """Measure; rows of case, value, unit, goal, met."""
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder, LocalFederation(Path(folder)) as federation:
        aggregator = federation.start_aggregator(nobody_left_s=3_600)
        aggregator.wait_for("aggregator-ready", within=LIMIT)
        job = asyncio.run(_submitted(federation))
        alone = resident_bytes(aggregator.pid)
        page = _start_page(federation)
        before_s = _processor_s(page.pid)
        of_job = long_job(events=events, sites=sites, job=job, began_at=time.time(), every_s=QUICKLY_S)
        asyncio.run(_publish(federation, of_job))
        _wait_for_all(page, job, events)
        case = f"{events:,} events, {sites} sites"
        yield row(f"{case}: processor per event", 1e6 * (_processor_s(page.pid) - before_s) / events, "us")
        yield row(f"{case}: memory of fedbus web", resident_bytes(page.pid) / MIB, "MiB")
        yield from _first_answers(case, _address(page), job)
        yield from _looked_at(case, federation, page, job, looking)
        aggregator.stop()
        beside = federation.start_aggregator(
            nobody_left_s=3_600, web=True, web_port=0, web_broker_url=federation.url("submitter")
        )
        address = str(beside.wait_for(READY, within=LIMIT)["address"])
        beside.wait_for("aggregator-ready", within=LIMIT)
        without_events = resident_bytes(beside.pid)
        _wait_for_all(beside, job, events, address=address)
        more = (resident_bytes(beside.pid) - alone) / MIB
        yield row("aggregator without the page: memory", alone / MIB, "MiB")
        yield row("aggregator with the page that nobody has opened: memory more", (without_events - alone) / MIB, "MiB")
        yield row(f"{case}: aggregator with the page: memory more", more, "MiB", MEMORY_GOAL_MIB)


def _start_page(federation: LocalFederation) -> Daemon:
    page = federation.start_page()
    wait_until(lambda: _address(page), within=LIMIT, what="the page's address", or_else=page.last_words)
    return page


def _address(page: Daemon) -> str:
    lines = page.log.read_text().splitlines() if page.log.exists() else []
    return next((line.strip() for line in lines if line.startswith("http://")), "")


async def _submitted(federation: LocalFederation) -> str:
    async with Client(SubmitterSettings.load(broker_url=federation.url("submitter"), timeout_s=60)) as client:
        return await client.submit(TrainingSpec.parse(SPEC))


async def _publish(federation: LocalFederation, events: Iterator[Event]) -> None:
    post = Post()
    async with Session(federation.url("aggregator"), name="bench") as session:
        await Publisher(session).publish_many(map(post.event, events), window=WINDOW)


def _wait_for_all(page: Daemon, job: str, events: int, *, address: str = "") -> None:
    """Until the page has taken in so many."""
    place = f"{address or _address(page)}jobs/{job}/data.json"

    def all_there() -> bool:
        with urlopen(place) as answer:  # noqa: S310 - our own page
            found = json.load(answer)
        time.sleep(POLL_S)
        return int(found.get("events", 0)) >= events

    wait_until(all_there, within=LIMIT, what="all events on the page", or_else=page.last_words)


def _first_answers(case: str, address: str, job: str) -> Iterator[Row]:
    for name, path in (("jobs", ""), ("a job", f"jobs/{job}"), ("sites", "sites")):
        taken = []
        for _ in range(20):
            began = time.perf_counter()
            with urlopen(f"{address}{path}") as answer:  # noqa: S310 - our own page
                answer.read()
            taken.append(1e3 * (time.perf_counter() - began))
        yield row(f"{case}: page of {name}, median of 20", statistics.median(taken), "ms", FIRST_ANSWER_GOAL_MS)


@dataclass(slots=True)
class _Looked:
    patches: int = 0
    received: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


def _looked_at(case: str, federation: LocalFederation, page: Daemon, job: str, looking: int) -> Iterator[Row]:
    before_s = _processor_s(page.pid)
    found = asyncio.run(_look(federation, _address(page), job, looking))
    used_s = _processor_s(page.pid) - before_s
    what = f"{case}: {looking} browsers and one that never reads, {LIVE_PER_S} events a second"
    yield row(f"{what}: of one core", 100 * used_s / LIVE_S, "%")
    yield row(f"{what}: patches a browser and second", found.patches / looking / LIVE_S, "1/s", 4.0)
    yield row(f"{what}: received by a browser", found.received / looking / LIVE_S / 1e3, "kB/s")
    yield row(f"{what}: memory of fedbus web", resident_bytes(page.pid) / MIB, "MiB")


async def _look(federation: LocalFederation, address: str, job: str, looking: int) -> _Looked:
    found = _Looked()
    host = urlsplit(address)
    async with asyncio.TaskGroup() as group:
        readers = []
        for number in range(looking + 1):
            reader, writer = await asyncio.open_connection(host.hostname, host.port)
            writer.write(f"GET /live?job={job} HTTP/1.1\r\nHost: {host.netloc}\r\n\r\n".encode())
            found.writers.append(writer)
            if number:
                readers.append(group.create_task(_read(reader, found), name=f"browser {number}"))
        await _publish_slowly(federation, job)
        for task in readers:
            task.cancel()
        for writer in found.writers:
            writer.close()
    return found


async def _publish_slowly(federation: LocalFederation, job: str) -> None:
    began = time.monotonic()
    async with Session(federation.url("aggregator"), name="bench live") as session:
        publisher, post = Publisher(session), Post()
        for number, event in enumerate(long_job(events=LIVE_PER_S * LIVE_S, sites=200, job=job, began_at=time.time())):
            await publisher.publish(post.event(event))
            await asyncio.sleep(max(0.0, began + number / LIVE_PER_S - time.monotonic()))


async def _read(reader: asyncio.StreamReader, found: _Looked) -> None:
    while part := await reader.read(1 << 16):
        found.patches += part.count(b"event: patch")
        found.received += len(part)


def _processor_s(pid: int) -> float:
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / TICKS
