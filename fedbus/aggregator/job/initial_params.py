"""Where a job's first params come from: the file that its spec names, or a site that is asked to make them.

Their layout is a site's in both cases, one that most sites make: a file knows neither what is learnt nor which names
are one tensor.

What lives here: whom to ask, and whether what came may be used. What may not: what the params are from then on (see
`keeper`), when the job starts (see `runner`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection

from fedbus.aggregator.job import receipts
from fedbus.aggregator.job.verdicts import refuse
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.tools import Tools
from fedbus.core.job.agreement import Agreement
from fedbus.core.job.life import Job
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.jobspec import JobSpec
from fedbus.errors import LayoutError, ProtocolError


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
        self._checked = False

    def site_started_anew(self, site: str) -> None:
        """A site has forgotten what it was asked."""
        if self._asked == site:
            self._asked = None

    async def check_file(self) -> None:
        """With a file that is not there, or is none, the job has failed: no site need be asked first."""
        if self._spec.initial_params is None or self._checked:
            return
        try:
            await self._tools.compute(self._keeper.check_file, self._spec.initial_params)
        except LayoutError as exc:
            self._life.failed(str(exc), now=time.monotonic())
        self._checked = True

    async def see_to(self, agreed: Agreement, *, active: Collection[str]) -> None:
        """Ask a site that makes the agreed model; another one when that one is gone.

        Nobody is asked while the sites disagree. Where none says its layout, any of the `active` ones will do.
        """
        candidates = agreed.sites if agreed.digest is not None or agreed.says else active
        if not candidates or self._asked in candidates:
            return
        site = self._asked = min(candidates)
        layout_only = self._spec.initial_params is not None
        what = f"says the layout of {self._spec.initial_params}" if layout_only else "makes the initial params"
        await self._event(events.JOB_WAITING, f"{site} {what}", site=site)
        await self._tools.announcer.tell(site, m.InitialParamsRequest(job=self._job, layout_only=layout_only))

    async def take(self, manifest: m.UpdateManifest, agreed: Agreement, *, too_late: bool) -> bool:
        """Take or refuse what a site made; False: its site is not asked again, for it would make the same."""
        site = m.UpdateId.parse(manifest.update_id).site
        try:
            self._check(manifest, site, agreed, too_late=too_late)
            await self._adopted(await self._tools.compute(self._adopt, manifest))
        except (ProtocolError, LayoutError) as exc:
            await refuse(manifest, str(exc), tools=self._tools, drop=self._keeper.drop)
            given_up = not too_late and site == self._asked
            if given_up:
                self._give_up(site, str(exc))
            return not given_up
        await self._tools.compute(self._keeper.drop, manifest.update_id)
        receipt = m.Receipt(job=self._job, update_id=manifest.update_id, outcome=m.Outcome.FOLDED)
        await receipts.give(receipt, self._tools)
        return True

    def _check(self, manifest: m.UpdateManifest, site: str, agreed: Agreement, *, too_late: bool) -> None:
        if too_late:
            raise ProtocolError("the job has its initial params already")
        if self._spec.sites is not None and site not in self._spec.sites:
            raise ProtocolError(f"site {site} is not one of the job's sites: {', '.join(self._spec.sites)}")
        if self._asked is not None and site != self._asked:
            raise ProtocolError(f"site {self._asked} was asked for them, not {site}")
        if agreed.digest is not None and manifest.layout_digest != agreed.digest:
            raise LayoutError(f"layout {manifest.layout_digest} is not the one that most sites make, {agreed.digest}")

    def _adopt(self, manifest: m.UpdateManifest) -> Layout:
        if self._spec.initial_params is None:
            return self._keeper.adopt_initial(manifest)
        return self._keeper.adopt_file(manifest, self._spec.initial_params)

    def _give_up(self, site: str, reason: str) -> None:
        """A file that does not fit fails the job: another site's layout is the same."""
        if self._spec.initial_params is not None:
            self._life.failed(reason, now=time.monotonic())
        else:
            self._life.declined(site, f"its initial params were refused: {reason}")

    async def _event(self, kind: str, text: str, *, site: str) -> None:
        await self._tools.announcer.event(kind, self._job, text, site=site)
