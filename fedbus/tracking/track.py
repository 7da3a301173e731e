"""Follow jobs and write their points to sinks; what a sink has already is not written again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fedbus.console.client import Client
from fedbus.core.protocol.messages import JobState
from fedbus.errors import FedbusError, SettingsError
from fedbus.tracking.points import Curves, Point
from fedbus.tracking.sink import Sink, Target

LOOK_S = 5.0
AGAIN_S = 60.0
GATHER_S = 0.5
Say = Callable[[str], object]
Sleep = Callable[[float], Awaitable[None]]


class Writer:
    """Of one job and one target: new points in, in a thread of their own, for a sink may wait for its server."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written = sink.written()
        self.count = 0

    def write(self, points: Sequence[Point]) -> None:
        new = {point.key: point for point in points if point.key not in self._written}
        if new:
            self._sink.write(list(new.values()))
            self._written |= new.keys()
            self.count += len(new)

    def close(self, state: str | None) -> None:
        self._sink.close(state)


async def track_wanted(client: Client, targets: Sequence[Target], *, say: Say, sleep: Sleep = asyncio.sleep) -> None:
    """Track every job that has not ended and asks by its key `track` for one of the targets' tools, for ever.

    What goes wrong with one is said, and tried again later.
    """
    known: set[str] = set()

    async def one(job: str) -> None:
        try:
            wanted = (await client.job(job)).spec.get("track", ())
            allowed = [target for target in targets if target.tool in wanted]
            if allowed:
                await track(client, job, allowed, say=say)
        except* FedbusError as group:
            say(f"{job}: {group.exceptions[0]}; tried again in {AGAIN_S:g} s")
            await sleep(AGAIN_S)
            known.discard(job)

    async with asyncio.TaskGroup() as group:
        while True:
            for line in await client.jobs():
                if line.job not in known and not JobState(line.state).ended:
                    known.add(line.job)
                    group.create_task(one(line.job), name=f"track {line.job}")
            await sleep(LOOK_S)


async def track(client: Client, job: str, targets: Sequence[Target], *, say: Say) -> str:
    """Write the curves of a job until it ends; the state in which it has ended. Raises StoreError, SettingsError."""
    detail = await client.job(job)
    kind = detail.spec.get("kind", "training")
    if kind != "training":
        raise SettingsError(f"job {job} is one of kind {kind}: only a training has curves")
    name = str(detail.spec.get("name", job))
    writers = [await asyncio.to_thread(_opened, target, job, name) for target in targets]
    curves, waiting = Curves(), list[Point]()
    wake = asyncio.Event()

    async def follow() -> None:
        async for event in client.events(job, submitted_at=detail.submitted_at or 0.0):
            waiting.extend(curves.after(event))
            wake.set()
            if curves.ended is not None:
                return

    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(), name=f"follow {job}")
            while not following.done() or waiting:
                await wake.wait()
                await asyncio.wait({following}, timeout=GATHER_S)  # many events come at once, at the start
                wake.clear()
                points, waiting[:] = list(waiting), []
                for writer in writers:
                    await asyncio.to_thread(writer.write, points)
    finally:
        for target, writer in zip(targets, writers, strict=True):
            await asyncio.to_thread(writer.close, curves.ended)
            say(f"{job}: {writer.count} points to {target.tool}:{target.place}")
    return curves.ended or ""


def _opened(target: Target, job: str, name: str) -> Writer:
    return Writer(target.sink(job, name))
