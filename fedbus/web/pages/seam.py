"""What a page is given and what it gives; pages know no HTTP. `app` brings both together.

Page    (Source, Asked) -> Shown, or Goto where something was done
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedbus.core.protocol import answers as a
from fedbus.core.spec.head import JobSpec


class Source(Protocol):
    """Where answers come from: a client on the bus, or what stands before one and remembers for a moment."""

    async def jobs(self) -> list[a.JobLine]: ...
    async def job(self, job: str) -> a.JobDetail: ...
    async def sites(self) -> list[a.SiteLine]: ...
    async def history(self, job: str) -> list[a.VersionLine]: ...
    async def what_left(self) -> a.AuditHeads: ...
    async def submit(self, spec: JobSpec, *, note: Callable[[str], object]) -> str: ...
    async def abort(self, job: str, reason: str | None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody asks for: names of the path, the query, a form's fields; and who it is.

    now: seconds since the epoch. may_submit: whether they may change something; nobody else gets a form.
    part: only the part of the page that the form changes is wanted.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    now: float = 0.0
    may_submit: bool = False
    part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A template and what it shows; `status` of HTTP."""

    template: str
    context: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Goto:
    """Something was done; the place where it is seen, a path of this page."""

    path: str


Page = Callable[[Source, Asked], Awaitable[Shown | Goto]]
