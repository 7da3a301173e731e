"""What a benchmark does with a job from outside: submit it, abort it, wait until nothing of it is left on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import ready_messages
from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import NoSuchQueueError
from fedbus.local.federation import LocalFederation

PATIENCE = timedelta(minutes=1)


def submit(federation: LocalFederation, spec: Mapping[str, Any]) -> str:
    """Submit a job and return its id."""

    async def ask() -> str:
        async with Client(_settings(federation)) as client:
            return await client.submit(TrainingSpec.parse(spec))

    return asyncio.run(ask())


def abort(federation: LocalFederation, job: str, reason: str) -> None:
    """End a job."""

    async def ask() -> None:
        async with Client(_settings(federation)) as client:
            await client.abort(job, reason)

    asyncio.run(ask())


def waiting(federation: LocalFederation, *queues: str) -> dict[str, int]:
    """Messages that nobody has taken yet, by queue; a queue that does not exist is left out."""

    async def ask() -> dict[str, int]:
        found = {}
        url, identity = federation.url("aggregator"), federation.identity("aggregator")
        async with Session(url, name="bench", identity=identity, give_up_after=PATIENCE) as session:
            for queue in queues:
                with suppress(NoSuchQueueError):
                    found[queue] = await ready_messages(session, queue)
        return found

    return asyncio.run(ask())


def is_over(federation: LocalFederation, job: str) -> bool:
    """Whether every update of an ended job is decided: its queue goes last, see `fedbus.aggregator.job.closing`."""
    return not waiting(federation, t.updates_queue(job))


def _settings(federation: LocalFederation) -> SubmitterSettings:
    return SubmitterSettings.load(broker_url=federation.url("submitter"), kit=federation.kit("submitter"))
