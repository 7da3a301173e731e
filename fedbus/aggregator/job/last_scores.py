"""The end of a training: every site scores the last version, then the best one when that is another.

A site scores the newest model that it holds. The last version is that, unless something was shown after it, before a
restart; the best is shown anew, see `showing`. So what a site is asked for is a number of the model log, and this is
where numbers become versions again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fedbus.aggregator.job.best import Best
from fedbus.aggregator.job.local_models import LocalModels
from fedbus.aggregator.job.result import best_of
from fedbus.aggregator.model.given import GivenParams
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.model.showing import Showing
from fedbus.aggregator.tools import Tools
from fedbus.core.job.training import TrainingJob
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.errors import LayoutError


class LastScores:
    """Of one job. `best` says which version has the best score so far, where that is another than the last.

    keeper: has the last version, and room for another one that takes no more memory: nothing is folded any more.
    """

    def __init__(
        self,
        job: str,
        *,
        life: TrainingJob,
        layout: Layout,
        keeper: ModelKeeper,
        best: Callable[[], Best | None],
        local_models: LocalModels | None,
        showing: Showing,
        tools: Tools,
        losses: int = 0,
    ) -> None:
        self._job = job
        self._losses = losses
        self._life = life
        self._layout = layout
        self._keeper = keeper
        self._best = best
        self._local_models = local_models
        self._showing = showing
        self._tools = tools
        self._asked: list[int] = []
        self._wait_until = 0.0

    def version_of(self, number: int) -> int:
        """The version that a site has scored under this number."""
        shown = self._showing.what(number)
        return number if shown is None else shown

    async def are_in(self, version: int) -> bool:
        """Ask for what is to be scored next, `version` first; True when no score is waited for any more."""
        if not self._asked:
            if await self._showing.last_number() > version:
                await self._showing.show(self._keeper, what=version)
            if self._local_models is not None:
                self._local_models.ask()
            await self._ask(version)
        if time.monotonic() < self._wait_until and (self._missing(self._asked[-1]) or self._locals_missing()):
            return False
        if self._local_models is not None:
            self._local_models.close()
        if len(self._asked) == 1 and (best := self._another(version)) is not None:
            await self._ask_for_best(best)
            return not self._missing(best.version)
        return True

    async def remind(self, site: str) -> None:
        """A site was started anew since it was asked: it is asked again for the score that it owes."""
        if self._asked and site in self._missing(self._asked[-1]):
            await self._tell(site, self._asked[-1])

    async def again(self) -> bool:
        """Show what is being scored once more, for a site that cannot follow; False when nothing was shown."""
        return await self._showing.again()

    def _another(self, version: int) -> Best | None:
        """The best version, when it is not the last."""
        kept = self._best()
        found = best_of(self._life, version, kept, exported="")
        return kept if kept is not None and found is not None and found["version"] != version else None

    async def _ask_for_best(self, best: Best) -> None:
        try:
            given = await self._tools.compute(self._read, best)
        except LayoutError as exc:  # it keeps the score that it has
            text = f"version {best.version}, the best, cannot be shown: {exc}"
            return await self._say(text)
        await self._say(f"every site scores version {best.version}, the best so far")
        await self._showing.show(given, what=best.version)
        return await self._ask(best.version)

    async def _say(self, what: str) -> None:
        await self._tools.announcer.event(self._job, events.JobWaiting(what=what))

    def _read(self, best: Best) -> GivenParams:
        chunk_bytes = self._life.head.chunk_bytes
        return GivenParams(best.path, self._layout, chunk_bytes=chunk_bytes, into=self._keeper.spare)

    async def _ask(self, version: int) -> None:
        self._asked.append(version)
        self._life.ask_for_scores(version)
        self._wait_until = time.monotonic() + self._tools.score_timeout_s
        for site in sorted(self._life.active):
            await self._tell(site, version)

    async def _tell(self, site: str, version: int) -> None:
        number = self._showing.number(version)
        wanted = version if number is None else number  # the last version is in the log under its own
        local = self._wants_local(version)
        request = m.ScoreRequest(job=self._job, version=wanted, intervals=True, losses=self._losses, local=local)
        await self._tools.announcer.tell(site, request)

    def _wants_local(self, version: int) -> bool:
        return self._local_models is not None and version == self._asked[0]

    def _locals_missing(self) -> list[str]:
        return [] if self._local_models is None else self._local_models.missing(self._life.active)

    def _missing(self, version: int) -> list[str]:
        return [site for asked, site in self._life.missing_scores() if asked == version]
