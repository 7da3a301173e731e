"""Where a job's first params come from: a file, or a site that is asked to make them.

Their layout is a site's in both cases, one that most sites make: a file knows neither what is learnt nor which names
are one tensor.

What lives here: whom to ask, and whether what came may be used. What may not: what the params are from then on (see
`keeper`), when the job starts (see `runner`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Protocol

from fedbus.aggregator.job import receipts
from fedbus.aggregator.job.verdicts import Drop, refuse
from fedbus.aggregator.tools import Tools
from fedbus.core.job.agreement import Agreement, Layouts
from fedbus.core.job.life import Job
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.errors import LayoutError, ProtocolError

# Opening a task takes seconds, loading its data perhaps minutes. Sites of an older release never say their layout:
# where none has said one, the job waits for less.
LAYOUTS_WAIT = timedelta(minutes=2)
FIRST_LAYOUT_WAIT = timedelta(seconds=20)


class Origin(Protocol):
    """What the params are made of, once a site has said their layout. Runs on the compute thread.

    file: which file they are read from, in words; empty: the site that is asked makes them.
    """

    @property
    def file(self) -> str: ...

    def check(self) -> None:
        """Raise LayoutError when the file cannot be used."""

    def adopt(self, manifest: m.UpdateManifest) -> Layout:
        """Become version 0. Raises DecodeError or LayoutError when what came is not usable."""


class InitialParams:
    """Of one job. `adopted` is awaited with their layout, once; `drop` deletes what a site made and sent."""

    def __init__(
        self,
        job: str,
        *,
        life: Job,
        origin: Origin,
        drop: Drop,
        tools: Tools,
        adopted: Callable[[Layout], Awaitable[None]],
        layouts_wait: timedelta = LAYOUTS_WAIT,
    ) -> None:
        self._job = job
        self._life = life
        self._origin = origin
        self._drop = drop
        self._tools = tools
        self._adopted = adopted
        self._layouts = Layouts(wait_s=layouts_wait.total_seconds(), first_wait_s=FIRST_LAYOUT_WAIT.total_seconds())
        self._asked: str | None = None
        self._checked = False
        self._told_differences = ""

    def layout_said(self, site: str, digest: str) -> None:
        """A site's task is open and makes params of this layout."""
        self._layouts.said(site, digest)

    def site_started_anew(self, site: str) -> None:
        """A site has forgotten what it was asked; its task may be another one now."""
        self._layouts.forget(site)
        if self._asked == site:
            self._asked = None

    async def check(self) -> None:
        """With a file that is not there, or is none, the job has failed: no site need be asked first."""
        if self._checked:
            return
        try:
            await self._tools.compute(self._origin.check)
        except LayoutError as exc:
            self._life.failed(str(exc), now=time.monotonic())
        self._checked = True

    def waits_for(self, active: Collection[str]) -> str:
        """What keeps enough sites from a start, in words: their layouts; empty: nothing does."""
        says = self._agreement(active).says if self._life.can_start(active) else ""
        return f"waiting for sites: {says}" if says else ""

    async def see_to(self, active: Collection[str]) -> None:
        """Ask a site that makes the agreed model; another one when that one is gone.

        Nobody is asked while the sites disagree. Where none says its layout, any of the `active` ones will do.
        """
        agreed = self._agreement(active)
        await self._tell_differences(agreed, active)
        candidates = agreed.sites if agreed.digest is not None or agreed.says else active
        if not candidates or self._asked in candidates:
            return
        site = self._asked = min(candidates)
        file = self._origin.file
        what = f"says the layout of {file}" if file else "makes the initial params"
        await self._event(events.JobWaiting(site=site, what=f"{site} {what}"))
        await self._tools.announcer.tell(site, m.InitialParamsRequest(job=self._job, layout_only=bool(file)))

    async def agreeing(self, layout: Layout, active: Collection[str]) -> frozenset[str]:
        """Sites whose task makes the params that are there; who differs is told."""
        await self._tell_differences(self._agreement(active), active)
        return self._layouts.agreeing(layout.digest, active, now=time.monotonic())

    async def take(self, manifest: m.UpdateManifest, active: Collection[str], *, too_late: bool) -> bool:
        """Take or refuse what a site made; False: its site is not asked again, for it would make the same."""
        site = m.UpdateId.parse(manifest.update_id).site
        try:
            self._check(manifest, site, self._agreement(active), too_late=too_late)
            await self._adopted(await self._tools.compute(self._origin.adopt, manifest))
        except (ProtocolError, LayoutError) as exc:
            await refuse(manifest, str(exc), tools=self._tools, drop=self._drop)
            given_up = not too_late and site == self._asked
            if given_up:
                self._give_up(site, str(exc))
            return not given_up
        await self._tools.compute(self._drop, manifest.update_id)
        receipt = m.Receipt(job=self._job, update_id=manifest.update_id, outcome=m.Outcome.FOLDED)
        await receipts.give(receipt, self._tools)
        return True

    def _agreement(self, active: Collection[str]) -> Agreement:
        return self._layouts.agreement(active, now=time.monotonic())

    async def _tell_differences(self, found: Agreement, active: Collection[str]) -> None:
        if self._layouts.differ(active) and found.says != self._told_differences:
            self._told_differences = found.says
            await self._event(events.JobWaiting(what=found.says))

    def _check(self, manifest: m.UpdateManifest, site: str, agreed: Agreement, *, too_late: bool) -> None:
        if too_late:
            raise ProtocolError("the job has its initial params already")
        named = self._life.head.sites
        if named is not None and site not in named:
            raise ProtocolError(f"site {site} is not one of the job's sites: {', '.join(named)}")
        if self._asked is not None and site != self._asked:
            raise ProtocolError(f"site {self._asked} was asked for them, not {site}")
        if agreed.digest is not None and manifest.layout_digest != agreed.digest:
            raise LayoutError(f"layout {manifest.layout_digest} is not the one that most sites make, {agreed.digest}")

    def _give_up(self, site: str, reason: str) -> None:
        """A file that does not fit fails the job: another site's layout is the same."""
        if self._origin.file:
            self._life.failed(reason, now=time.monotonic())
        else:
            self._life.declined(site, f"its initial params were refused: {reason}")

    async def _event(self, waiting: events.JobWaiting) -> None:
        await self._tools.announcer.event(self._job, waiting)
