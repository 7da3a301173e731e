"""From flags to a running aggregator to an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from fedbus.aggregator.settings import LOGIN, AggregatorSettings
from fedbus.bus.connection import Session
from fedbus.runtime.collector import search_as_usual, search_rarely
from fedbus.runtime.lifecycle import leaving_at_once, run_daemon
from fedbus.runtime.logging import configure_logging

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

PAGE_STOP_S = 2.0
Beside = Callable[[asyncio.Event], Awaitable[None]]

log = structlog.get_logger()


def start(*, page: Callable[[], Beside] | None = None, **flags: object) -> int:
    """Run the aggregator daemon until a signal; flags that are None were not given. Raises SettingsError.

    `page` makes what runs beside it where its settings say `web`: its end ends nothing else.
    """
    settings = AggregatorSettings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    beside = page() if settings.web and page is not None else None
    return run_daemon(lambda stop: _run_with(beside, settings, stop))


async def _run_with(beside: Beside | None, settings: AggregatorSettings, stop: asyncio.Event) -> None:
    if beside is None:
        await _run(settings, stop)
        return
    async with asyncio.TaskGroup() as group:
        page = group.create_task(_alone(beside, stop), name="page")
        await _run(settings, stop)
        await asyncio.wait([page], timeout=PAGE_STOP_S)
        page.cancel()


async def _alone(beside: Beside, stop: asyncio.Event) -> None:
    """Whatever happens to the page, the aggregator goes on."""
    try:
        await beside(stop)
    except Exception:
        log.exception("page-stopped", text="the page has ended; the aggregator goes on without it")


async def _run(settings: AggregatorSettings, stop: asyncio.Event) -> None:
    await _try_login(settings.url_for(LOGIN), settings.identity(), stop)
    if stop.is_set():
        return
    with leaving_at_once():
        search_rarely()
        from fedbus.aggregator.daemon import run_aggregator  # imports torch

        search_as_usual()
    await run_aggregator(settings, stop)


async def _try_login(url: str, identity: Identity | None, stop: asyncio.Event) -> None:
    """Say what the broker answers before torch is imported: seconds in which a wrong password is not told."""
    answered = asyncio.Event()
    tell = Session(
        url, name="aggregator/start", identity=identity, retry_login=True, on_state=lambda *_: answered.set()
    )
    async with tell:
        waiting = [asyncio.create_task(event.wait()) for event in (answered, stop)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
