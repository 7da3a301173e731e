"""Whom the table asks, and what it knows: a connection as submitter, and the newest answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fedbus.console.watched import Freshness
from fedbus.core.protocol.answers import JobDetail, JobLine, SiteLine
from fedbus.core.protocol.messages import Event
from fedbus.errors import FedbusError


class Asked(Protocol):
    """What `console.Client` answers, as far as it is asked here."""

    @property
    def connected(self) -> bool: ...
    @property
    def broker(self) -> str: ...
    def stay(self) -> None: ...
    async def jobs(self) -> list[JobLine]: ...
    async def sites(self) -> list[SiteLine]: ...
    async def job(self, job: str) -> JobDetail: ...
    async def abort(self, job: str, reason: str | None) -> None: ...
    def events(self, job: str, *, submitted_at: float) -> AsyncIterator[Event]: ...


Connect = Callable[[], AbstractAsyncContextManager[Asked]]


@dataclass(slots=True, kw_only=True)
class Overview:
    """The newest answers, and how fresh they are."""

    jobs: Sequence[JobLine] = ()
    sites: Sequence[SiteLine] = ()
    fresh: Freshness = field(default_factory=Freshness)

    async def ask(self, asked: Asked, now: Callable[[], float]) -> None:
        """Ask for both anew. What is not answered is as it was, and `fresh` says so."""
        try:
            jobs, sites = await asked.jobs(), await asked.sites()
        except FedbusError as exc:
            self.fresh.failed(exc)
        else:
            self.jobs, self.sites = jobs, sites
            self.fresh.answered(now())

    def site(self, name: str) -> SiteLine | None:
        return next((site for site in self.sites if site.site == name), None)

    def job(self, job: str) -> JobLine | None:
        return next((line for line in self.jobs if line.job == job), None)
