"""The scores of a job that trains, and when it ends.

What lives here: what the sites measured, stop rules. What may not: states (see `life`), aggregation (see `rules`).

The course of the mean survives a restart (`took_trend`), and so does what each site measured last (`took_score`):
patience does not begin anew.

Stop rules, in the order in which they are asked: versions, updates, wall_time_s (since `started`), target, patience.
Target and patience look at the mean of `scores`, over at least max(min_sites, half of the active sites) sites.
While a version has no finite loss somewhere it reaches no target, and is no improvement. A job that only target or
patience could end, on metrics that no site reports, cannot end by itself, see `cannot_end`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from fedbus.core.job.answers import Answers
from fedbus.core.job.life import Job
from fedbus.core.job.prospects import Reported, rules_of, watched_metrics
from fedbus.core.job.scores import NO_SPREADS, Score, Scores, Trend
from fedbus.core.protocol.messages import JobState
from fedbus.core.protocol.spread import Spreads
from fedbus.core.spec.training import PatienceSpec, TargetSpec, TrainingSpec
from fedbus.core.words import counted

NEAR_TARGET = 0.1
"""From three sites on, the mean without any one of them has to come this near to a target, as a share of it."""


class TrainingJob(Job):
    """One job that trains on its way. `spec` and what the sites measured decide; the caller acts."""

    def __init__(self, spec: TrainingSpec) -> None:
        super().__init__(spec, wall_time_s=spec.stop.wall_time_s)
        self.spec = spec
        self._scores = Scores()
        self._trend = Trend(ranking_of(spec)[1])
        self._reported = Reported(watched_metrics(spec))
        self._last_scores: dict[str, Score] = {}
        self._finals: Answers[Score] = Answers()
        self._from_before: dict[str, Score] = {}
        self.lacks_labels = False
        """Whether the start waits for labels that people make; the caller says so."""

    # -------------------------------------------------------------- what is known

    @property
    def waits_for_people(self) -> bool:
        return self.lacks_labels

    @property
    def best(self) -> tuple[int, float] | None:
        """The best version so far and its mean of the ranking metric; None before a version was scored."""
        return self._trend.best

    @property
    def trend_point(self) -> tuple[int, float | None] | None:
        """The newest point of the trend: a version and its mean, None when it is broken; None before there is one."""
        return self._trend.newest

    def took_trend(self, points: Iterable[tuple[int, float | None]]) -> None:
        """Take up the points, in order of versions, that were there before the aggregator was started anew."""
        for version, mean in points:
            self._trend.add(version, mean)

    def took_score(self, site: str, score: Score) -> None:
        """Take up what a site had measured last before the aggregator was started anew; it counts once it is back."""
        self._last_scores[site] = self._from_before[site] = score

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over the sites' newest scores; None below the quorum."""
        return self._scores.mean(metric, quorum=self._quorum())

    @property
    def ranking_mean(self) -> float | None:
        """The mean that ranks the newest scored version; None below the quorum, and while it is broken somewhere."""
        return None if self.broken else self.mean(ranking_of(self.spec)[0])

    def means(self) -> dict[str, float]:
        """Return all means that exist."""
        found = ((metric, self.mean(metric)) for metric in self._scores.metrics())
        return {metric: value for metric, value in found if value is not None}

    @property
    def not_finite(self) -> dict[str, Score]:
        """By site, its newest score while something of it is not finite."""
        return self._scores.not_finite

    @property
    def broken(self) -> bool:
        """Whether the newest version that some site scored has no finite loss there."""
        return self._scores.broken

    # -------------------------------------------------------------- scores

    def finishing(self, reason: str, *, now: float, score: Collection[int] = ()) -> None:
        """A stop rule was reached; every active site is to score the versions in `score`, such as the last."""
        super().finishing(reason, now=now)
        for version in score:
            self._finals.ask(version)

    def ask_for_scores(self, version: int) -> None:
        """While the job is finishing every active site is to score one more version, such as the best."""
        self._finals.ask(version)

    def set_active(self, sites: Collection[str]) -> None:
        """Say which accepted sites are there now; scores of the others no longer count."""
        super().set_active(sites)
        self._scores.keep_only(self._active)
        for site in self._active & self._from_before.keys():
            self._scores.add(site, self._from_before.pop(site))

    def scored(
        self,
        *,
        version: int,
        site: str,
        metrics: Mapping[str, float],
        num_examples: int,
        not_finite: Collection[str] = (),
        spreads: Spreads = NO_SPREADS,
        asked: bool | None = None,
    ) -> bool:
        """Take in a site's score of a version; False when it does not count (site not active, older, no examples).

        While the job is finishing only the versions that `finishing` named count, see `final_scores`, and no score that
        was made before the site was asked for it (asked False): it lacks what was asked for beside the metrics.
        """
        score = Score.of(
            version=version, metrics=metrics, num_examples=num_examples, not_finite=not_finite, spreads=spreads
        )
        final = self._state is JobState.FINISHING and site in self._active and asked is not False
        if final and self._finals.take(version, site, score):
            self._last_scores[site] = score
            return True
        if self._state is not JobState.RUNNING or site not in self._active or not self._scores.add(site, score):
            return False
        self._last_scores[site] = score
        self._reported.add(site, score)
        mean = self.ranking_mean
        if mean is not None or self.broken:
            self._trend.add(version, mean)
        return True

    def cannot_score(self, *, version: int, site: str, reason: str) -> None:
        """A site has tried to score a version, and cannot: what it measured before does not stand for it any more.

        At the end of the job nobody waits for it.
        """
        if site not in self._active:
            return
        if self._state is JobState.FINISHING:
            self._finals.cannot(version, site, reason)
        elif self._state is JobState.RUNNING:
            self._scores.drop(site)

    def final_scores(self, version: int) -> dict[str, Score]:
        """Return what each site measured of a version while the job was finishing."""
        return self._finals.of(version)

    @property
    def last_scores(self) -> Mapping[str, Score]:
        """What each site measured last, also of those that are gone."""
        return dict(sorted(self._last_scores.items()))

    def failed_scores(self, version: int) -> dict[str, str]:
        """Return why sites could not score a version while the job was finishing."""
        return self._finals.failures(version)

    def missing_scores(self) -> list[tuple[int, str]]:
        """Return (version, site) of the final scores that active sites still owe."""
        return self._finals.missing(self._active)

    # -------------------------------------------------------------- end

    def stop_reason(self, *, version: int, updates: int, now: float) -> str | None:
        """Say which stop rule a running job has reached; None while it goes on."""
        stop = self.spec.stop
        if self._state is not JobState.RUNNING:
            return None
        if stop.versions is not None and version >= stop.versions:
            return f"version {version} of {stop.versions} is there"
        if stop.updates is not None and updates >= stop.updates:
            return f"{updates} of {stop.updates} updates are folded"
        return self.wall_time_over(now=now) or self._target_reached(stop.target) or self._patience_over(stop.patience)

    @property
    def waits_for_metrics(self) -> str:
        """Say which stop rules of a running job wait for metrics that no site reports, or too few; empty: none."""
        if self._state is not JobState.RUNNING:
            return ""
        watched, missing, quorum = watched_metrics(self.spec), self._reported.missing, self._quorum()
        too_few = (
            f"{rules_of(watched, metric)} for metric {metric!r} of at least {counted(quorum, 'site')}"
            for metric in sorted({*watched.values()} - {*missing.values()})
            if self._scores.lacks_reporters(metric, quorum=quorum)
        )
        return "; ".join(filter(None, (self._reported.says(), *too_few)))

    def cannot_end(self) -> str | None:
        """Say why no stop rule of a running job can ever be reached; None while one may, or not enough is known."""
        stop = self.spec.stop
        by_count = (stop.versions, stop.updates, stop.wall_time_s)
        if any(limit is not None for limit in by_count) or self._reported.missing != watched_metrics(self.spec):
            return None
        enough = self._state is JobState.RUNNING and self._reported.enough(self._active)
        return f"{self._reported.says()}; nothing else ends the job" if enough else None

    def _target_reached(self, target: TargetSpec | None) -> str | None:
        mean = None if target is None or self.broken else self.mean(target.metric)
        if target is None or mean is None:
            return None
        if not self._without_any_one(target):
            return None
        if target.at_least is not None and mean >= target.at_least:
            return f"{target.metric} {mean:.4g} reached the target of at least {target.at_least:g}"
        if target.at_most is not None and mean <= target.at_most:
            return f"{target.metric} {mean:.4g} reached the target of at most {target.at_most:g}"
        return None

    def _without_any_one(self, target: TargetSpec) -> bool:
        """Whether the others come near the target without any single site: nobody ends a job alone."""
        means = self._scores.means_without_one(target.metric)
        if target.at_least is not None:
            return all(mean >= target.at_least - NEAR_TARGET * abs(target.at_least) for mean in means)
        limit = target.at_most or 0.0
        return all(mean <= limit + NEAR_TARGET * abs(limit) for mean in means)

    def _patience_over(self, patience: PatienceSpec | None) -> str | None:
        best = self._trend.best
        if patience is None or best is None or self._trend.since_best < patience.versions:
            return None
        return (
            f"{patience.metric} has not improved on {best[1]:.4g} of version {best[0]} for {patience.versions} versions"
        )

    def _quorum(self) -> int:
        return max(self.spec.min_sites, (len(self._active) + 1) // 2)


def ranking_of(spec: TrainingSpec) -> tuple[str, Literal["higher", "lower"]]:
    """Return the metric that ranks versions and which is better: of patience, else of target, else loss, lower."""
    if spec.stop.patience is not None:
        return spec.stop.patience.metric, spec.stop.patience.better
    if spec.stop.target is not None:
        return spec.stop.target.metric, spec.stop.target.better
    return "loss", "lower"
