"""How `fedbus watch` follows a job: a panel that is drawn anew on a terminal, a line an event anywhere else."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import typer
from rich.console import RenderableType

from fedbus.console import look
from fedbus.console.panel import job_panel
from fedbus.console.picture import Picture
from fedbus.console.watched import Freshness, Watched
from fedbus.core.protocol.messages import Event
from fedbus.errors import FedbusError
from fedbus.runtime.printable import printable
from fedbus.runtime.terminal import Terminal

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.core.protocol.answers import JobDetail

ASK_EVERY_S = 1.0
LINES_OF_SHELL = 3
ENDS = (signal.SIGTERM, signal.SIGHUP)
"""What ends a watch with the terminal as it was; so does Ctrl-C, see `runtime.process`."""


async def watch_job(client: Client, job: str, *, as_json: bool = False) -> int:
    """Follow a job to its end, and return 0 when it has finished, else 1; 128 and the number after a signal."""
    detail = await client.job(job)
    console = Terminal()
    if as_json or not look.on_terminal(console):
        return await _lines(client, detail, as_json=as_json)
    watched = Watched(job=job, picture=Picture(job=job), detail=detail, fresh=Freshness(answered_at=time.monotonic()))

    def picture(spare: int = 1) -> RenderableType:
        watched.fresh.connected = client.connected
        width, height = console.size
        return job_panel(watched, width=width, height=height - spare, now=time.time(), clock=time.monotonic())

    ended_by: list[int] = []
    try:
        with look.live(picture, console, by_itself=False) as screen, _signals(screen, ended_by):
            await _follow(client, watched, screen)
    except asyncio.CancelledError:
        if not ended_by:
            raise
        return 128 + ended_by[0]
    finally:
        console.print(picture(LINES_OF_SHELL))  # of the screen nothing is left
    return 0 if watched.picture.finished else 1


async def _lines(client: Client, detail: JobDetail, *, as_json: bool) -> int:
    picture = Picture(job=detail.job)
    async for event in client.events(detail.job, submitted_at=detail.submitted_at or 0.0):
        print_event(event, as_json=as_json)
        picture.take(event)
        if picture.ended:
            break
    return 0 if picture.finished else 1


def print_event(event: Event, *, as_json: bool) -> None:
    """Print one event as a line, for people or as JSON."""
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(event)))
    else:
        at = datetime.fromtimestamp(event.at).astimezone()
        typer.echo(f"{at:%H:%M:%S%z}  {printable(event.kind):<18} {printable(event.text)}")


async def _follow(client: Client, watched: Watched, screen: look.Screen) -> None:
    submitted_at = watched.detail.submitted_at if watched.detail else None
    client.stay()
    try:
        async with asyncio.TaskGroup() as group:
            others = (
                group.create_task(_ask(client, watched), name="ask"),
                group.create_task(_draw(screen), name="draw"),
            )
            async for event in client.events(watched.job, submitted_at=submitted_at or 0.0):
                watched.take(event)
                if watched.picture.ended:
                    break
            for task in others:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # callers expect the one error


async def _ask(client: Client, watched: Watched) -> None:
    while True:
        try:
            watched.look(await client.job(watched.job), await client.sites(), now=time.monotonic())
        except FedbusError as exc:
            watched.fresh.failed(exc)
        await asyncio.sleep(ASK_EVERY_S)


async def _draw(screen: look.Screen) -> None:
    while True:
        screen.refresh()
        await asyncio.sleep(1 / look.REDRAWS_PER_S)


@contextmanager
def _signals(screen: look.Screen, ended_by: list[int]) -> Iterator[None]:
    """Inside, a signal that ends the process cancels the task instead, and Ctrl-Z gives the terminal back meanwhile."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end(number: signal.Signals) -> None:
        ended_by.append(number)
        if task is not None:
            task.cancel()

    def stop() -> None:
        screen.stop()
        os.kill(os.getpid(), signal.SIGSTOP)
        screen.start()

    heard = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        for number in (*heard, signal.SIGTSTP):
            loop.remove_signal_handler(number)
