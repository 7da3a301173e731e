"""The scores of one job at the aggregator: told to people, and the best version kept for its end.

What lives here: what a site's score means for those who watch, and what the job leaves behind. What may not: stop rules
and means (see `core.job.life`, `core.job.scores`), which files are kept (see `best`).
"""

from __future__ import annotations

import time

from fedbus.aggregator.job.best import Best, BestVersions
from fedbus.aggregator.job.result import best_of, broken_at, result_of, why_failed
from fedbus.aggregator.job.work import Outcome
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.tools import Tools
from fedbus.core.job.scores import NO_SPREADS, Score, means_of
from fedbus.core.job.training import TrainingJob, ranking_of
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.events import MOST_TOLD
from fedbus.core.protocol.limits import MOST_REASON
from fedbus.core.rules.aggregation import Aggregation


class Scoring:
    """Of one job."""

    def __init__(
        self, job: str, *, life: TrainingJob, aggregation: Aggregation, keeper: ModelKeeper, tools: Tools
    ) -> None:
        self._job = job
        self._life = life
        self._aggregation = aggregation
        self._keeper = keeper
        self._tools = tools
        self._best = BestVersions(keeper.best_folder, better=ranking_of(life.spec)[1])
        self._told: dict[str, str] = {}

    async def take(self, score: m.ScoreAnswer) -> None:
        """A site scored a version, or could not; one that does not exist would pass for the newest and is ignored.

        Spreads are kept of what was asked for at the end, not of every version.
        """
        if not 0 <= score.version <= self._aggregation.version or score.site not in self._life.accepted_sites:
            return
        if score.failed:
            await self._cannot(score)
            return
        measured = Score.of(
            version=score.version,
            metrics=score.metrics,
            num_examples=score.num_examples,
            not_finite=score.not_finite,
            spreads=score.spreads if self._life.state is m.JobState.FINISHING else NO_SPREADS,
        )
        counts = self._life.scored(
            version=measured.version,
            site=score.site,
            metrics=measured.metrics,
            num_examples=measured.num_examples,
            not_finite=measured.not_finite,
            spreads=measured.spreads,
            asked=score.asked,
        )
        if not counts:  # it came too late, or from a site that is not there: nobody is told of it
            return
        await self._keep(score.site, measured)
        await self._say(score.site, measured)
        if self._life.state is m.JobState.RUNNING and (self._life.broken or self._mean is not None):
            newest = self._aggregation.version
            await self._tools.compute(self._best.scored, score.version, self._mean, newest=newest)

    async def restore(self) -> None:
        """After a restart: patience goes on where it was, and what a site measured last counts when it is back."""
        self._life.took_trend(await self._tools.store(self._tools.ledger.findings.trend, self._job))
        for kept in await self._tools.store(self._tools.ledger.findings.newest_scores, self._job):
            self._life.took_score(kept.site, kept.score)

    @property
    def best(self) -> Best | None:
        """The best of the versions that were kept and scored; None: there is none."""
        return self._best.best

    @property
    def _mean(self) -> float | None:
        return self._life.ranking_mean

    async def keep_version(self) -> None:
        """Keep the newest version until a score says what it is worth."""
        version = self._aggregation.version
        if self._life.spec.local.evaluate and self._best.wants(version):
            await self._tools.compute(self._best.keep, version, self._keeper.write)

    async def conclude(self, *, has_params: bool = True) -> Outcome:
        """Export the last version; what the job leaves behind, of which nothing else stays on disk.

        has_params: whether there is any version, which a job that never started may lack.
        """
        version, life = self._aggregation.version, self._life
        exported = str(await self._tools.compute(self._keeper.export)) if has_params else ""
        kept = self._best.best
        best = best_of(life, version, kept, exported=exported)
        failed = why_failed(life, version, best)
        if failed and best is not None:
            exported = str(best["exported"])
        still_kept = kept if best is not None and kept is not None and best["version"] == kept.version else None
        await self._tools.compute(self._best.close, keep=still_kept)
        result = result_of(life, self._aggregation, exported=exported, best=best)
        broken = broken_at(life, version)
        note = f"version {version} scores NaN or infinity at {', '.join(broken)}" if broken and not failed else ""
        return Outcome(result=result, failed=failed, note=note)

    async def _cannot(self, score: m.ScoreAnswer) -> None:
        reason = score.failed[:MOST_REASON]
        self._life.cannot_score(version=score.version, site=score.site, reason=reason)
        if self._is_news(score.site, f"failed: {reason}"):
            await self._event(events.ScoreFailed(site=score.site, version=score.version, reason=reason))

    async def _keep(self, site: str, score: Score) -> None:
        """Keep a point of the job's curve."""
        means, point = self._means(score.version), self._life.trend_point
        add = self._tools.ledger.findings.add_score
        await self._tools.store(add, self._job, site, score, means=means, point=point, at=time.time())

    def _means(self, version: int) -> dict[str, float]:
        """Of the sites' newest scores; at the end of the job of those that were asked for then, and no others."""
        finals = self._life.final_scores(version).values()
        return means_of(finals) if finals else self._life.means()

    async def _say(self, site: str, score: Score) -> None:
        await self._event(
            events.VersionScored(
                site=site,
                version=score.version,
                metrics=score.metrics,
                num_examples=score.num_examples,
                means=self._life.means(),
                not_finite=score.not_finite,
            )
        )
        names = score.not_finite[:MOST_TOLD]
        if self._is_news(site, ", ".join(names)) and names:
            await self._event(events.ScoreNotFinite(site=site, version=score.version, names=names))

    def _is_news(self, site: str, what: str) -> bool:
        """Whether this was not what was said of the site last: a job that has diverged is one incident a site."""
        before = self._told.get(site, "")
        self._told[site] = what
        return what != before

    async def _event(self, happened: events.Happened) -> None:
        await self._tools.announcer.event(self._job, happened)


def not_finite_text(life: TrainingJob) -> str:
    """Say which versions are not finite where, as far as the newest scores say; empty when all are."""
    found = (
        f"version {score.version} scores NaN or infinity at {site} ({', '.join(score.not_finite[:MOST_TOLD])})"
        for site, score in life.not_finite.items()
    )
    return "; ".join(found)
