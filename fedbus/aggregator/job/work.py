"""What a job of one kind does between its start and its end: the part of a job that `runner` drives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from fedbus.core.job.life import Job
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.head import JobSpec

# After a restart the sites answer the roll call first: a job about to end would end without what they measured.
SITES_RETURN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job has ended: its result, why it has failed (empty: it has not), and what to add to its reason.

    follow_up: a job to be made when this one has finished, in the name of its submitter.
    """

    result: Mapping[str, object]
    failed: str = ""
    note: str = ""
    follow_up: JobSpec | None = None


class Work(Protocol):
    """The runner awaits one call at a time; what sites say may come between two of them.

    life: the states of the job, which the work's `finish` and the runner change. doing: the work in a word, such as
    'training'. stream: the name of the job's model log; "" before there is one. redone: what `open` had to do again,
    in words; empty: nothing.
    """

    @property
    def life(self) -> Job: ...
    @property
    def doing(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def redone(self) -> str: ...
    @property
    def layout(self) -> Layout | None:
        """Layout of the params that sites send; None before it is known."""

    # what people see

    @property
    def version(self) -> int | None:
        """The newest version; None in a job that makes none."""

    @property
    def updates(self) -> int | None:
        """Updates that were folded; None in a job that folds none."""

    @property
    def progress(self) -> tuple[int, ...]:
        """Changes whenever the work moves."""

    @property
    def rule(self) -> str | None:
        """What an automatic choice came to, in words; None: none was made."""

    def waits_to_start_for(self, active: Collection[str]) -> str:
        """What keeps the job from starting, in words."""

    def waiting_for(self) -> str:
        """What a running or finishing job waits for, in words."""

    def remarks(self) -> str:
        """What people should know beside that; empty: nothing."""

    @property
    def paused(self) -> str:
        """Why what a running job receives waits undecided: too few sites; empty: it does not."""

    def site_numbers(self) -> dict[str, dict[str, object]]:
        """What each site has given: updates, refused, mean_staleness, data_wait."""

    def details(self) -> dict[str, Any]:
        """What `fedbus show` says of a running job beyond that: fields of `answers.JobDetail`."""

    # what sites say

    def layout_said(self, site: str, digest: str) -> None:
        """A site's task is open and makes params of this layout."""

    def site_started_anew(self, site: str) -> None:
        """A site has forgotten what it was asked; its task may be another one now."""

    def sites_changed(self, active: frozenset[str]) -> None:
        """These accepted sites are there now."""

    async def welcome(self, site: str) -> None:
        """Tell a site that may follow the model log what it owes and what it has missed."""

    async def on_score(self, score: m.ScoreAnswer) -> None:
        """A site scored a version, or could not."""

    async def admission(self, site: str) -> str | None:
        """Why a site that accepts is left out; empty: it is not; None: not known yet, `on_statistics` may tell."""

    async def on_statistics(self, answer: m.StatisticsAnswer) -> None:
        """A site says statistics of its data, or why it cannot."""

    def snapshot_wanted(self) -> None:
        """The newest version is to come as a snapshot: some site cannot follow."""

    # what the runner asks for, in this order

    def beside(self) -> AbstractAsyncContextManager[None]:
        """What goes on beside all the rest, from the first step to the end of the job; it ends when this is left."""

    async def open(self) -> None:
        """Take the work up where the ledger says it is."""

    async def prepare(self, active: Collection[str]) -> bool:
        """Do what comes before the start; True when the job can start now."""

    async def begin(self) -> None:
        """The job starts: the sites find version 0 in the model log then."""

    def due_at(self, *, now: float) -> float | None:
        """When `step` has something to do though nothing came; None: when something comes."""

    async def take_initial(self, manifest: m.UpdateManifest, active: Collection[str]) -> bool:
        """Take or refuse a job's first params; False: their site takes part no more."""

    async def take(self, manifest: m.UpdateManifest, *, ending: bool) -> None:
        """Decide on an update, while the job runs. ending: the next step ends it."""

    async def take_local(self, manifest: m.UpdateManifest) -> None:
        """Take or refuse a site's local model."""

    async def refuse(self, manifest: m.UpdateManifest, reason: str) -> None:
        """Refuse an update, on record."""

    async def step(self, *, ending: bool) -> str | None:
        """Do what is due while the job runs; return why it ends now. ending: that is known already."""

    async def finish(self, reason: str) -> str:
        """The job ends: close what is open and make `life` finishing; return what comes next, in words."""

    async def step_finishing(self) -> bool:
        """Do what is due while the job is finishing; True when nothing more is waited for."""

    async def conclude(self) -> Outcome:
        """What the job leaves, however it has ended."""
