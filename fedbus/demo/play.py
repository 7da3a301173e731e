"""The play of the demo: which process is started or stopped when, and what the aggregator says meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedbus.console.client import Client
from fedbus.console.settings import LOGIN, SubmitterSettings
from fedbus.core.spec.training import TrainingSpec
from fedbus.demo.job import (
    AWAY,
    AWAY_IS_STARTED_AT,
    AWAY_IS_STOPPED_AT,
    FIRST,
    LATE,
    LATE_IS_STARTED_AT,
    PACE_S,
)
from fedbus.demo.story import Story
from fedbus.errors import FedbusError
from fedbus.local.federation import Daemon, LocalFederation
from fedbus.web.beside import READY as PAGE_READY
from fedbus.web.beside import not_installed

LIMIT = timedelta(minutes=3)
LOOK_EVERY_S = 0.5
WATCH_EVERY_S = 0.2
READY_POLL_S = 0.05
STATUS_INTERVAL_S = 1.0
ANSWER_WITHIN_S = 60.0  # a busy machine is no reason to give up
LAST_LINES = 5


class Play:
    """One performance in a federation whose broker is up; `data` has a folder per hospital. Main thread only."""

    def __init__(self, federation: LocalFederation, story: Story, data: Path) -> None:
        self._federation = federation
        self._story = story
        self._data = data
        self._on_stage: dict[str, Daemon] = {}
        self._moved = asyncio.Condition()

    async def run(self, spec: TrainingSpec) -> None:
        """Play to the end of the job. Raises FedbusError when it does not finish, or a process dies."""
        try:
            async with asyncio.timeout(LIMIT.total_seconds()), asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(), name="watch processes")
                await self._perform(spec)
                watch.cancel()
        except TimeoutError as exc:
            raise FedbusError(f"the demo did not end within {LIMIT}; the job says: {self._story.says}") from exc
        except BaseExceptionGroup as group_of:
            expected = group_of.subgroup(FedbusError)
            if expected is None:
                raise
            raise first_of(expected) from None
        if not self._story.picture.finished:
            raise FedbusError(f"the job ended as {self._story.picture.state}: {self._story.sentences[-1][1]}")

    async def _perform(self, spec: TrainingSpec) -> None:
        aggregator = self._on_stage["aggregator"] = self._federation.start_aggregator(**self._page())
        self._story.aggregator = "starting"
        for hospital in FIRST:
            self._start(hospital)
        if not not_installed():
            ready = await _logged(aggregator, PAGE_READY)
            self._story.page = str(ready.get("address"))
            self._story.say(f"see it live in a browser: {self._story.page}")
        await _logged(aggregator, "aggregator-ready")
        self._story.aggregator = "up"
        settings = SubmitterSettings.load(
            broker_url=self._federation.url(LOGIN), kit=self._federation.kit(LOGIN), timeout_s=ANSWER_WITHIN_S
        )
        async with Client(settings) as client:
            job = await client.submit(spec)
            submitted_at = (await client.job(job)).submitted_at or 0.0
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(self._look(client, job), name="look"),
                    group.create_task(self._come_and_go(), name="come and go"),
                ]
                await self._follow(client, job, submitted_at=submitted_at)
                for task in others:
                    task.cancel()

    def _page(self) -> dict[str, object]:
        """Settings of the page, which runs beside the aggregator with the submitter's login."""
        if not_installed():
            return {}
        kit = self._federation.kit(LOGIN)
        login = {"web_broker_url": self._federation.url(LOGIN)} | ({} if kit is None else {"web_kit": kit})
        return {"web": True, "web_port": 0, **login}

    async def _follow(self, client: Client, job: str, *, submitted_at: float) -> None:
        async for event in client.events(job, submitted_at=submitted_at):
            self._story.take(event)
            async with self._moved:
                self._moved.notify_all()
            if self._story.picture.ended:
                return

    async def _look(self, client: Client, job: str) -> None:
        while True:
            self._story.look(await client.job(job))
            await asyncio.sleep(LOOK_EVERY_S)

    # -------------------------------------------------------------- who comes and goes

    async def _come_and_go(self) -> None:
        await self._version(LATE_IS_STARTED_AT)
        self._start(LATE)
        await self._version(AWAY_IS_STOPPED_AT)
        self._story.say(f"{AWAY}: the process is told to stop (SIGTERM)")
        await asyncio.to_thread(self._on_stage.pop(AWAY).stop)
        await self._version(AWAY_IS_STARTED_AT)
        self._start(AWAY)

    async def _version(self, version: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._story.picture.version >= version)

    def _start(self, hospital: str) -> None:
        self._story.starts(hospital)
        self._on_stage[hospital] = self._federation.start_site(
            hospital,
            self._data / hospital,
            step_delay_s=PACE_S[hospital],
            status_interval_s=STATUS_INTERVAL_S,
            device="cpu",  # sixteen params: to wake a GPU would take longer than all the training
        )

    # -------------------------------------------------------------- who must be alive

    async def _watch(self) -> None:
        while True:
            for name, daemon in self._on_stage.items():
                if not daemon.alive:
                    last = "\n".join(daemon.last_words().splitlines()[-LAST_LINES:])
                    raise FedbusError(f"the process of {name} has died; its last words:\n{last}")
            node = self._federation.own_node
            if node is not None and not node.status().running:
                raise FedbusError(f"RabbitMQ has died; with --keep its log stays in {node.base / 'log'}")
            await asyncio.sleep(WATCH_EVERY_S)


async def _logged(daemon: Daemon, event: str) -> dict[str, Any]:
    """Wait for a line in a daemon's log; `Play._watch` sees to it that the daemon lives."""
    while True:
        if found := next((line for line in daemon.events() if line.get("event") == event), None):
            return found
        await asyncio.sleep(READY_POLL_S)


def first_of(group: BaseExceptionGroup[FedbusError]) -> FedbusError:
    """The first error of a group of groups."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
