"""A federation that is told rather than run: the page's own feed and server, with events and answers made up here.

So many sites train one job; what they do moves with each look, as it does where sites report every few seconds.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import uvicorn

from fedbus.bus.connection import LinkState
from fedbus.console.fetch import AskedInVainError
from fedbus.console.settings import SubmitterSettings
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event
from fedbus.core.spec.head import JobSpec
from fedbus.web.app import Served, make_app
from fedbus.web.auth import Door, Keys
from fedbus.web.feed import Feed
from fedbus.web.settings import WebSettings

JOB = "long-0000aaaa"
BUFFER = 8
FEED_S = 0.1
STEPS = 120


def events(*, sites: int, began_at: float) -> Iterator[Event]:
    """What happens in a long job: updates, a version of every eight, a score of every second one."""
    for number, happened in enumerate(_happened(sites)):
        yield e.wire_of(happened, job=JOB, at=began_at + number / 100)


def _happened(sites: int) -> Iterator[e.Happened]:
    names = [f"site-{number:03}" for number in range(sites)]
    yield e.JobSubmitted(login="ana", task="segmentation")
    yield from (e.SiteAccepted(site=name) for name in names)
    yield e.JobRunning(sites=tuple(names))
    update = version = 0
    while True:
        made = []
        for _ in range(BUFFER):
            update += 1
            site = names[update * 7 % sites]
            made.append(f"{site}:0123abcd:{update}")
            loss = 0.2 + 1 / (1 + update / 500)
            yield e.UpdateFolded(
                site=site, update=made[-1], staleness=update % 5, body_bytes=410_000, metrics={"loss": loss}
            )
        version += 1
        yield e.VersionCommitted(version=version, updates=tuple(made), body_bytes=390_000)
        if version % 2 == 0:
            dice = 0.9 - 0.6 / (1 + version / 100)
            scored = {"dice": dice, "loss": 1 - dice}
            yield e.VersionScored(site=names[version % sites], version=version, metrics=scored, means=scored)


class StagedFeed(Feed):
    """The page's feed without a broker: `past` events are known before anybody looks, then so many come a second."""

    def __init__(self, *, sites: int, past: int, rate: int) -> None:
        super().__init__(SubmitterSettings.load(broker_url="amqp://submitter:none@127.0.0.1:1/none"))
        self._coming = events(sites=sites, began_at=time.time() - past / 100)
        self._rate = rate
        self._on_state(LinkState.CONNECTED, "")
        self.reading, self.may_submit = None, True
        for event in islice(self._coming, past):
            self.take(event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="page: beat")
            group.create_task(self._happen(), name="page: events")

    async def _happen(self) -> None:
        while True:
            for event in islice(self._coming, max(1, int(self._rate * FEED_S))):
                self.take(event)
            await asyncio.sleep(FEED_S)


class StagedAnswers:
    """What an aggregator would answer of that job; see `pages.seam.Source`."""

    def __init__(self, feed: Feed, *, sites: int) -> None:
        self._feed = feed
        self._names = [f"site-{number:03}" for number in range(sites)]
        self._began_at = time.time()

    async def jobs(self) -> list[a.JobLine]:
        return [a.JobLine(job=JOB, name="long", task="segmentation", state="running", started_at=self._began_at)]

    async def job(self, job: str) -> a.JobDetail:
        picture = self._feed.picture(JOB)
        if job != JOB or picture is None:
            raise AskedInVainError(f"no job {job}")
        numbers = {name: picture.site(name) for name in self._names}
        gave = {
            name: a.SiteInJob(
                updates=one.updates,
                mean_staleness=one.mean_staleness,
                num_examples=300,
                influence=(1 + number % 7) / 4 / len(numbers),
                share=1 / len(numbers),
                state="online",
                activity="training",
                version=picture.version,
            )
            for number, (name, one) in enumerate(numbers.items())
        }
        return a.JobDetail(
            job=JOB,
            name="long",
            task="segmentation",
            state="running",
            version=picture.version,
            updates=picture.updates,
            says=f"waiting for {BUFFER - len(picture.buffer)} more updates, buffer {len(picture.buffer)} of {BUFFER}",
            submitted_at=self._began_at,
            started_at=self._began_at,
            sites=gave,
            spec={"kind": "training"},
        )

    async def sites(self) -> list[a.SiteLine]:
        step = int(time.time() * 3)
        return [
            a.SiteLine(
                site=name,
                state="online",
                since_s=3600.0,
                heard_s=1.0,
                device="cuda",
                fedbus_version="1.0",
                tasks=("segmentation",),
                jobs={JOB: a.Doing(activity="training", step=(step + number) % STEPS, steps=STEPS, device="cuda:0")},
            )
            for number, name in enumerate(self._names)
        ]

    async def history(self, job: str) -> list[a.VersionLine]:
        return []

    async def what_left(self) -> a.AuditHeads:
        return a.AuditHeads(heads=())

    async def submit(self, spec: JobSpec, *, note: Callable[[str], object]) -> str:
        return JOB

    async def abort(self, job: str, reason: str | None) -> None:
        return None


@contextmanager
def staged_page(*, sites: int, past: int, rate: int) -> Iterator[str]:
    """The address of the page of such a federation, served from a thread."""
    feed = StagedFeed(sites=sites, past=past, rate=rate)
    settings = WebSettings(port=0)
    served = Served(
        feed=feed,
        answers=StagedAnswers(feed, sites=sites),
        door=Door(settings, Keys(None)),
        read_only=False,
        secure=False,
        cookie="fedbus-bench",
    )
    place = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(served), log_level="error", lifespan="off", ws="none", http="h11"))

    async def run() -> None:
        feeding = asyncio.create_task(feed.run())
        await server.serve(sockets=[place])
        feeding.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        feed.close()
        server.should_exit = True
        thread.join(10)
