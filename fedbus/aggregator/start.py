"""From flags to a running aggregator to an exit code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fedbus.aggregator.settings import LOGIN, AggregatorSettings
from fedbus.bus.connection import Session
from fedbus.runtime.collector import search_as_usual, search_rarely
from fedbus.runtime.lifecycle import leaving_at_once, run_daemon
from fedbus.runtime.logging import configure_logging

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity


def start(**flags: object) -> int:
    """Run the aggregator daemon until a signal; flags that are None were not given. Raises SettingsError."""
    settings = AggregatorSettings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    return run_daemon(lambda stop: _run(settings, stop))


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
