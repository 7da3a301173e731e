"""A second implementation of `Asked`: a federation of given answers, whose link and aggregator a test takes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from fedbus.console.fetch import AskedInVainError
from fedbus.core.protocol import events as e
from fedbus.core.protocol.answers import Doing, JobDetail, JobLine, SiteInJob, SiteLine
from fedbus.core.protocol.messages import Event
from fedbus.errors import NoAnswerError

JOB = "heart-4-hospitals-0a1b2c3d"
SAYS = "waiting for 1 more update (1 of 2 in the buffer); training: ucsf (step 40/120); offline: mercy (since 14 min)"
NOON = 1_700_000_000.0


def jobs() -> list[JobLine]:
    """Three, of which one runs."""
    made: list[tuple[Any, ...]] = [
        ("kidneys-77aa88bb", "segmentation", "finished", 40, 120, "version 40 of 40 is there"),
        ("digits-00ff00ff", "digits", "aborted", 3, 9, "aborted by ana: wrong data"),
        (JOB, "heart_disease", "running", 12, 34, SAYS),
    ]
    names = ("job", "task", "state", "version", "updates", "says")
    return [
        JobLine(**dict(zip(names, one, strict=True)), submitted_at=float(number)) for number, one in enumerate(made)
    ]


def sites() -> list[SiteLine]:
    """One trains, one is lost, one does nothing."""
    training = Doing(activity="training", version=11, step=40, steps=120, device="cuda:0")
    return [
        SiteLine(site="charite", state="online", since_s=7200.0, heard_s=3.0, device="cpu", tasks=("digits",)),
        SiteLine(site="mercy", state="lost", since_s=840.0, heard_s=870.0, clock_ahead_s=-40.0),
        SiteLine(
            site="ucsf",
            state="online",
            since_s=600.0,
            heard_s=1.0,
            device="cpu",
            fedbus_version="0.1.0",
            tasks=("heart_disease",),
            jobs={JOB: training},
        ),
    ]


def happened() -> list[Event]:
    """The events of the job that runs."""
    said: list[e.Happened] = [e.JobSubmitted(login="ana", task="heart_disease"), e.SiteAccepted(site="mercy")]
    said += [e.SiteAccepted(site="ucsf"), e.JobRunning(sites=("mercy", "ucsf"))]
    for version in range(1, 13):
        site = "mercy" if version < 6 else "ucsf"
        update = e.UpdateFolded(site=site, update=f"{site}:0123abcd:{version}", metrics={"loss": 1 / version})
        said += [update, e.VersionCommitted(version=version, updates=(update.update,))]
        auc = {"auc": 1 - 0.5 / version}
        said.append(e.VersionScored(site=site, version=version, metrics=auc, means=auc))
    said.append(e.SiteLost(site="mercy", reason="silent"))
    return [e.wire_of(one, job=JOB, at=NOON + second) for second, one in enumerate(said)]


@dataclass(slots=True, kw_only=True)
class GivenFederation:
    """What is answered. answers: whether anybody does; connected: whether there is a link to the broker."""

    lines: Sequence[JobLine] = field(default_factory=jobs)
    of_sites: Sequence[SiteLine] = field(default_factory=sites)
    answers: bool = True
    connected: bool = True
    broker: str = "rabbit.example.org:5671/fedbus"
    aborted: list[str] = field(default_factory=list)
    times_asked: int = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        pass

    def stay(self) -> None:
        pass

    def _ask(self) -> None:
        self.times_asked += 1
        if not (self.answers and self.connected):
            raise NoAnswerError("nobody took or answered query within 15 s")

    async def jobs(self) -> list[JobLine]:
        self._ask()
        return list(self.lines)

    async def sites(self) -> list[SiteLine]:
        self._ask()
        return list(self.of_sites)

    async def job(self, job: str) -> JobDetail:
        self._ask()
        line = next((line for line in self.lines if line.job == job), None)
        if line is None:
            raise AskedInVainError(f"no job {job!r}")
        own = {name: getattr(line, name) for name in ("job", "task", "state", "version", "updates", "says")}
        numbers = {"ucsf": SiteInJob(updates=7, state="online"), "mercy": SiteInJob(updates=5, state="lost")}
        return JobDetail(**own, spec={"stop": {"versions": 50}}, started_at=NOON, sites=numbers)

    async def abort(self, job: str, reason: str | None) -> None:
        self._ask()
        self.aborted.append(job)

    async def events(self, job: str, *, submitted_at: float) -> AsyncIterator[Event]:
        for event in happened():
            yield event
        await asyncio.Event().wait()
