"""The life of one job, and when it ends.

What lives here: states and their transitions, which sites take part, stop rules. What may not: aggregation (see
`aggregation`), clocks (`now` is an argument: seconds, never falling), messages.

    from                        by            to
    submitted                   offered       waiting for sites
    waiting for sites           started       running
    running                     finishing     finishing
    finishing                   finished      finished
    any that has not ended      failed        failed
    any that has not ended      aborted       aborted

What is not in the table raises ProtocolError and changes nothing. Answers and scores of sites race with the end of a
job: those that come too late are no error, they return False.

The course of the mean survives a restart (`took_trend`): patience does not begin anew. What each site measured last
does not; sites score the next version within moments.

Stop rules, in the order in which they are asked: versions, updates, wall_time_s (since `started`), target, patience.
Target and patience look at the mean of `scores`, over at least max(min_sites, half of the active sites) sites.
While a version has no finite loss somewhere it reaches no target, and is no improvement. A job that only target or
patience could end, on metrics that no site reports, cannot end by itself, see `cannot_end`.
A job with a wall time that has not started ends as well, see `waits_until`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from fedbus.core.job.prospects import Reported, rules_of, watched_metrics
from fedbus.core.job.scores import Score, Scores, Trend
from fedbus.core.protocol.messages import JobState
from fedbus.core.spec.jobspec import JobSpec, PatienceSpec, TargetSpec
from fedbus.core.words import counted
from fedbus.errors import ProtocolError

_NEXT: Mapping[str, tuple[JobState, JobState]] = {
    "offered": (JobState.SUBMITTED, JobState.WAITING),
    "started": (JobState.WAITING, JobState.RUNNING),
    "finishing": (JobState.RUNNING, JobState.FINISHING),
    "finished": (JobState.FINISHING, JobState.FINISHED),
}

NEAR_TARGET = 0.1
"""From three sites on, the mean without any one of them has to come this near to a target, as a share of it."""


class Job:
    """One job on its way. `spec` and what the sites answered decide; the caller acts."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self._state = JobState.SUBMITTED
        self._since: float | None = None
        self._started_at: float | None = None
        self._reason = ""
        self._accepted: set[str] = set()
        self._ever_accepted: set[str] = set()
        self._declined: dict[str, str] = {}
        self._active: frozenset[str] = frozenset()
        self._scores = Scores()
        self._trend = Trend(ranking_of(spec)[1])
        self._reported = Reported(watched_metrics(spec))
        self._last_scores: dict[str, Score] = {}
        self._finals: dict[tuple[int, str], Score] = {}
        self._cannot_score: dict[tuple[int, str], str] = {}
        self._final_versions: frozenset[int] = frozenset()

    # -------------------------------------------------------------- what is known

    @property
    def state(self) -> JobState:
        return self._state

    @property
    def since(self) -> float | None:
        """When the state began; None in `submitted`."""
        return self._since

    @property
    def reason(self) -> str:
        """Why the job is finishing or has ended; empty before."""
        return self._reason

    @property
    def accepted_sites(self) -> frozenset[str]:
        return frozenset(self._accepted)

    @property
    def participants(self) -> frozenset[str]:
        """Sites that have ever accepted, also those that gave up since."""
        return frozenset(self._ever_accepted)

    @property
    def declined_sites(self) -> Mapping[str, str]:
        """Reasons by site."""
        return dict(self._declined)

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

    def can_start(self, online: Collection[str]) -> bool:
        """Whether the job waits for sites and as many of those that accepted are online as it asks for."""
        return self._state is JobState.WAITING and len(self._accepted & set(online)) >= self.spec.least_sites

    def waiting_for(self, online: Collection[str]) -> str:
        """Say what keeps the job from starting, e.g. 'waiting for sites: 1 of 2 accepted; declined: va (reason)'."""
        ready = len(self._accepted & set(online))
        text = f"waiting for sites: {ready} of {self.spec.least_sites} accepted"
        declined = ", ".join(f"{site} ({reason})" for site, reason in sorted(self._declined.items()))
        return f"{text}; declined: {declined}" if declined else text

    # -------------------------------------------------------------- transitions

    def offered(self, *, now: float) -> None:
        """The job was offered to the sites."""
        self._go("offered", now=now)

    def started(self, *, now: float) -> None:
        """Initial params are there and version 0 is published; wall time runs from here."""
        self._go("started", now=now)
        self._started_at = now

    def finishing(self, reason: str, *, now: float, score: Collection[int] = ()) -> None:
        """A stop rule was reached; every active site is to score the versions in `score`, such as best and last."""
        self._go("finishing", now=now)
        self._reason = reason
        self._final_versions = frozenset(score)

    def finished(self, *, now: float) -> None:
        """All is scored and exported."""
        self._go("finished", now=now)

    def concluded(self, *, failed: str, note: str, now: float) -> None:
        """All is scored: the job has failed after all, for that reason; or it is finished, perhaps with a note."""
        if failed:
            return self.failed(failed, now=now)
        self.finished(now=now)
        self._reason = f"{self._reason}; {note}" if note else self._reason
        return None

    def failed(self, reason: str, *, now: float) -> None:
        """The job cannot go on."""
        self._end(JobState.FAILED, reason, now=now)

    def aborted(self, reason: str, *, now: float) -> None:
        """A person ended the job."""
        self._end(JobState.ABORTED, reason, now=now)

    # -------------------------------------------------------------- sites

    def accepted(self, site: str) -> bool:
        """A site takes part from now on; False when it is too late. ProtocolError when nobody asked it."""
        if not self._may_answer(site):
            return False
        self._declined.pop(site, None)
        self._accepted.add(site)
        self._ever_accepted.add(site)
        return True

    def took_part(self, site: str) -> None:
        """A site had accepted before the aggregator was started anew; whether it is there, it says itself."""
        self._ever_accepted.add(site)

    def declined(self, site: str, reason: str) -> bool:
        """A site does not take part, or no longer; False when it is too late. ProtocolError when nobody asked it."""
        if not self._may_answer(site):
            return False
        self._accepted.discard(site)
        self._declined[site] = reason
        return True

    def set_active(self, sites: Collection[str]) -> None:
        """Say which accepted sites are there now; scores of the others no longer count."""
        self._active = frozenset(sites)
        self._scores.keep_only(self._active)

    def scored(
        self,
        *,
        version: int,
        site: str,
        metrics: Mapping[str, float],
        num_examples: int,
        not_finite: Collection[str] = (),
    ) -> bool:
        """Take in a site's score of a version; False when it does not count (site not active, older, no examples).

        While the job is finishing only the versions that `finishing` named count, see `final_scores`.
        """
        score = Score.of(version=version, metrics=metrics, num_examples=num_examples, not_finite=not_finite)
        if self._state is JobState.FINISHING and version in self._final_versions and site in self._active:
            self._finals[version, site] = self._last_scores[site] = score
            self._cannot_score.pop((version, site), None)
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
        if self._state is JobState.FINISHING and version in self._final_versions:
            self._cannot_score[version, site] = reason
        elif self._state is JobState.RUNNING:
            self._scores.drop(site)

    def final_scores(self, version: int) -> dict[str, Score]:
        """Return what each site measured of a version while the job was finishing."""
        return {site: score for (scored, site), score in sorted(self._finals.items()) if scored == version}

    @property
    def last_scores(self) -> Mapping[str, Score]:
        """What each site measured last, also of those that are gone."""
        return dict(sorted(self._last_scores.items()))

    def failed_scores(self, version: int) -> dict[str, str]:
        """Return why sites could not score a version while the job was finishing."""
        return {site: why for (scored, site), why in sorted(self._cannot_score.items()) if scored == version}

    def missing_scores(self) -> list[tuple[int, str]]:
        """Return (version, site) of the final scores that active sites still owe."""
        wanted = ((version, site) for version in self._final_versions for site in self._active)
        return sorted(key for key in wanted if key not in self._finals and key not in self._cannot_score)

    # -------------------------------------------------------------- end

    def stop_reason(self, *, version: int, updates: int, now: float) -> str | None:
        """Say which stop rule a running job has reached; None while it goes on."""
        stop = self.spec.stop
        if self._state is not JobState.RUNNING or self._started_at is None:
            return None
        if stop.versions is not None and version >= stop.versions:
            return f"version {version} of {stop.versions} is there"
        if stop.updates is not None and updates >= stop.updates:
            return f"{updates} of {stop.updates} updates are folded"
        if stop.wall_time_s is not None and now - self._started_at >= stop.wall_time_s:
            return f"the wall time of {stop.wall_time_s:g} s is over"
        return self._target_reached(stop.target) or self._patience_over(stop.patience)

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

    def waits_until(self, *, submitted: float, at_least: float) -> float | None:
        """Return when a job that has not started by then has failed: its wall time after it was submitted.

        But not before `at_least`: sites need a while to come. None without a wall time.
        """
        limit = self.spec.stop.wall_time_s
        return None if limit is None else max(submitted + limit, at_least)

    def wall_time_ends_at(self) -> float | None:
        """Return when to ask `stop_reason` again though nothing came; None without a wall time or when not running."""
        limit = self.spec.stop.wall_time_s
        running = self._state is JobState.RUNNING
        return self._started_at + limit if running and limit is not None and self._started_at is not None else None

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

    def _may_answer(self, site: str) -> bool:
        if self._state is JobState.SUBMITTED or (self.spec.sites is not None and site not in self.spec.sites):
            raise ProtocolError(f"site {site} answers for job {self.spec.name}, which was not offered to it")
        return self._state in (JobState.WAITING, JobState.RUNNING)

    def _go(self, by: str, *, now: float) -> None:
        before, after = _NEXT[by]
        if self._state is not before:
            raise ProtocolError(f"job {self.spec.name} is {self._state}; only a job that is {before} can be {by}")
        self._state, self._since = after, now

    def _end(self, state: JobState, reason: str, *, now: float) -> None:
        if self._state.ended:
            raise ProtocolError(f"job {self.spec.name} is {self._state} already; it cannot become {state}")
        self._state, self._since, self._reason = state, now, reason


def ranking_of(spec: JobSpec) -> tuple[str, Literal["higher", "lower"]]:
    """Return the metric that ranks versions and which is better: of patience, else of target, else loss, lower."""
    if spec.stop.patience is not None:
        return spec.stop.patience.metric, spec.stop.patience.better
    if spec.stop.target is not None:
        return spec.stop.target.metric, spec.stop.target.better
    return "loss", "lower"
