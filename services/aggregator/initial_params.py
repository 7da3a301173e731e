"""Where a job's first params come from: the file that its spec names, or a site that is asked to make them.

What lives here: whom to ask, and whether what came may be used. What may not: what the params are from then on (see
`model_keeper`), when the job starts (see `job_runner`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection

from fedbus.core import events
from fedbus.core import messages as m
from fedbus.core.job import Job
from fedbus.core.jobspec import JobSpec
from fedbus.core.layout import Layout
from fedbus.errors import DecodeError, LayoutError, ProtocolError
from services.aggregator import receipts
from services.aggregator.model_keeper import ModelKeeper
from services.aggregator.tools import Tools


class InitialParams:
    """Of one job. `adopted` is awaited with their layout, once."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        *,
        life: Job,
        keeper: ModelKeeper,
        tools: Tools,
        adopted: Callable[[Layout], Awaitable[None]],
    ) -> None:
        self._job = job
        self._spec = spec
        self._life = life
        self._keeper = keeper
        self._tools = tools
        self._adopted = adopted
        self._asked: str | None = None

    def site_started_anew(self, site: str) -> None:
        """A site has forgotten what it was asked."""
        if self._asked == site:
            self._asked = None

    async def see_to(self, active: Collection[str]) -> None:
        """Load the file that the spec names, or ask a site; another one when that one is gone.

        With a file that cannot be used the job has failed.
        """
        if self._spec.initial_params is not None:
            try:
                await self._adopted(await self._tools.compute(self._keeper.start_from_file, self._spec.initial_params))
            except (LayoutError, DecodeError) as exc:
                self._life.failed(str(exc), now=time.monotonic())
        elif active and self._asked not in active:
            site = self._asked = min(active)
            await self._event(events.JOB_WAITING, f"{site} makes the initial params", site=site)
            await self._tools.announcer.tell(site, m.InitialParamsRequest(job=self._job))

    async def take(self, manifest: m.UpdateManifest, *, too_late: bool) -> bool:
        """Take or refuse what a site made; False: its site is not asked again, for it would make the same."""
        site, outcome, reason = m.UpdateId.parse(manifest.update_id).site, m.Outcome.FOLDED, ""
        try:
            if too_late:
                raise ProtocolError("the job has its initial params already")
            if self._spec.sites is not None and site not in self._spec.sites:
                raise ProtocolError(f"site {site} is not one of the job's sites: {', '.join(self._spec.sites)}")
            await self._adopted(await self._tools.compute(self._keeper.adopt_initial, manifest))
        except (ProtocolError, LayoutError) as exc:
            outcome, reason = m.Outcome.REFUSED, str(exc)
            await self._event(events.UPDATE_REFUSED, f"initial params of {site} refused: {exc}", site=site)
        given_up = bool(reason) and not too_late and site == self._asked
        if given_up:
            self._life.declined(site, f"its initial params were refused: {reason}")
        await self._tools.compute(self._keeper.drop, manifest.update_id)
        receipt = m.Receipt(job=self._job, update_id=manifest.update_id, outcome=outcome, reason=reason)
        await receipts.give(receipt, self._tools)
        return not given_up

    async def _event(self, kind: str, text: str, *, site: str) -> None:
        await self._tools.announcer.event(kind, self._job, text, site=site)
