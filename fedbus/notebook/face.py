"""What a person asks a federation from a notebook: one object, each question a method."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from fedbus.console.client import Client
from fedbus.console.columns import columns_of
from fedbus.console.fetch import Fetched
from fedbus.console.outcome import when_ended
from fedbus.console.settings import SubmitterSettings
from fedbus.core.protocol.answers import JobDetail, JobLine, SiteLine
from fedbus.core.protocol.events import JobEnded
from fedbus.core.protocol.messages import Event
from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.errors import SettingsError
from fedbus.notebook.line import Line

Curve = Any
"""A pandas DataFrame, or `list[VersionLine]`."""
Spec = JobSpec | Mapping[str, Any] | str | Path
MOST_UNREAD = 64


class AsyncFederation:
    """A federation as its submitter sees it; an async context manager. All errors are FedbusError."""

    def __init__(self, settings: SubmitterSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        self._line = Line(self._settings)
        await self._line.ask(Client.ready)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._line.close()

    async def submit(self, spec: Spec) -> str:
        """Submit a job and return its id. spec: a mapping, a YAML text, or the path of a file.

        Raises JobSpecError with every problem; UnansweredError when it is published and nobody has answered yet.
        """
        parsed = spec_of(spec)
        return await self._line.ask(lambda client: client.submit(parsed))

    async def jobs(self) -> list[JobLine]:
        """All jobs, oldest first."""
        return await self._line.ask(Client.jobs)

    async def job(self, job: str) -> JobDetail:
        """One job with its spec, sites, scores and result."""
        return await self._line.ask(lambda client: client.job(job))

    async def sites(self) -> list[SiteLine]:
        """All sites that have joined since the aggregator started."""
        return await self._line.ask(Client.sites)

    async def history(self, job: str) -> Curve:
        """The curve of a job, one row a version: a DataFrame where pandas is installed, else the lines themselves.

        Columns: at, seconds, updates, contributors, the mean of each metric, and `auc:mercy` for what a site measured.
        """
        lines = await self._line.ask(lambda client: client.history(job))
        if importlib.util.find_spec("pandas") is None:
            return lines
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]  # ships no types

        frame = pd.DataFrame(columns_of(lines))
        frame["at"] = pd.to_datetime(frame["at"], unit="s", utc=True)
        return frame.set_index("version")

    async def watch(self, job: str) -> AsyncIterator[Event]:
        """What happens in a job, from its submission until it ends; over an outage of the broker, too."""
        told: asyncio.Queue[Event] = asyncio.Queue(MOST_UNREAD)
        reader = asyncio.create_task(self._read(job, told), name=f"watch {job}")
        try:
            while not (reader.done() and told.empty()):
                waiting = asyncio.ensure_future(told.get())
                await asyncio.wait({waiting, reader}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield waiting.result()
                else:
                    waiting.cancel()
            reader.result()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await reader

    async def _read(self, job: str, told: asyncio.Queue[Event]) -> None:
        """On a connection of its own, which waits for a broker that is away: the questions' does not."""
        async with Client(self._settings) as client:
            detail = await client.job(job)
            async for event in client.events(job, submitted_at=detail.submitted_at or 0.0):
                await told.put(event)
                if event.kind == JobEnded.kind:
                    return

    async def wait(self, job: str) -> JobDetail:
        """The job when it has ended, at once when it has; over an outage of the broker, too."""
        async with Client(self._settings) as client:
            return await when_ended(client, job)

    async def get(self, job: str, to: str | Path, version: str | int = "last") -> Fetched:
        """Write the params of a version, `last`, `best` or a number, to a safetensors file."""
        return await self._line.ask(lambda client: client.get(job, version, Path(to)))

    async def abort(self, job: str, reason: str | None = None) -> None:
        """End a job that runs or waits; what it has learnt is exported."""
        await self._line.ask(lambda client: client.abort(job, reason))


def spec_of(spec: Spec) -> JobSpec:
    """A job spec in whatever form. Raises JobSpecError, and SettingsError for a file that cannot be read."""
    if isinstance(spec, JobSpec):
        return spec
    if isinstance(spec, Mapping):
        return kinds.parse(spec)
    if isinstance(spec, str) and ("\n" in spec or ":" in spec):
        return kinds.parse_yaml(spec)
    try:
        return kinds.parse_yaml(Path(spec).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"cannot read job spec {spec}: {exc}") from exc
