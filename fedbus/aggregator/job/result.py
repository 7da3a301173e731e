"""The result of a job that has ended, however it did, as it is kept in the ledger and shown: JSON-able data."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedbus.aggregator.job.best import Best
from fedbus.aggregator.job.scored_model import over_sites
from fedbus.core.job.scores import Score, mean_of, reported
from fedbus.core.job.training import TrainingJob, ranking_of
from fedbus.core.protocol import answers as a
from fedbus.core.rules.aggregation import Aggregation


def result_of(
    life: TrainingJob, aggregation: Aggregation, *, exported: str, best: Mapping[str, object] | None = None
) -> dict[str, object]:
    """What is kept of a job; `exported` is the file with the last version's params, `best` see `best_of`.

    Where a job has ended without asking for scores of its last version, those stand here that each site gave last.
    """
    version = aggregation.version
    scores = life.final_scores(version)
    if life.state.ended:
        scores = {**life.last_scores, **scores}
    return {
        "reason": life.reason,
        "version": aggregation.version,
        "updates": aggregation.updates,
        "rule": aggregation.chosen,
        "exported": exported,
        "best": None if best is None else dict(best),
        "scores": {site: _score(score, version) for site, score in scores.items()}
        | {
            site: {"metrics": {}, "num_examples": 0, "failed": why} for site, why in life.failed_scores(version).items()
        },
        "sites": site_numbers(aggregation, life.participants),
    } | _intervals(scores)


def best_of(life: TrainingJob, version: int, kept: Best | None, *, exported: str) -> dict[str, object] | None:
    """The best version, by the metric that ranks: the last one, or a better one that was kept; None: none was good.

    exported: the file of the last one, `version`.
    """
    metric, better = ranking_of(life.spec)
    last = _final_mean(life, version, metric)
    value = None if kept is None else _final_mean(life, kept.version, metric)
    value = kept.value if kept is not None and value is None else value
    beaten = last is not None and value is not None and (value > last if better == "higher" else value < last)
    if last is not None and not beaten:
        return {"version": version, "metric": metric, "value": last, "exported": exported}
    if kept is None:
        return None
    scores = {site: _score(score, kept.version) for site, score in life.final_scores(kept.version).items()}
    found = {"version": kept.version, "metric": metric, "value": value, "exported": str(kept.path)}
    return found | ({"scores": scores} | _intervals(life.final_scores(kept.version)) if scores else {})


def _final_mean(life: TrainingJob, version: int, metric: str) -> float | None:
    """The mean of what the sites measured of a version at the end; None: nothing, or it is of no use somewhere."""
    scores = life.final_scores(version).values()
    found = reported(scores, metric)
    return mean_of(found) if found and not any(score.broken for score in scores) else None


def broken_at(life: TrainingJob, version: int) -> tuple[str, ...]:
    """Sites where the last version is of no use, see `scores.Score.broken`."""
    return tuple(site for site, score in life.final_scores(version).items() if score.broken)


def why_failed(life: TrainingJob, version: int, best: Mapping[str, object] | None) -> str:
    """Why a job that has come to its end has failed: its last version is of no use anywhere; empty: it has not."""
    scored, broken = life.final_scores(version), broken_at(life, version)
    if not scored or len(broken) < len(scored):
        return ""
    text = f"version {version} scores NaN or infinity at every site that scored it: {', '.join(broken)}"
    if best is None:
        return f"{text}; no version that was scored finite is kept ({life.reason})"
    return f"{text}; the best finite version, {best['version']}, is exported ({life.reason})"


def _intervals(scores: Mapping[str, Score]) -> dict[str, object]:
    """Of the means over the sites that say how sure they are."""
    found = over_sites(scores, lambda score: score.spreads)
    return {"intervals": a.as_json(found)} if found else {}


def _score(score: Score, last: int) -> dict[str, object]:
    told: dict[str, object] = {"metrics": dict(score.metrics), "num_examples": score.num_examples}
    if score.version != last:
        told["version"] = score.version
    if intervals := a.intervals_of(score.spreads):
        told["intervals"] = a.as_json(intervals)
    return told | ({"not_finite": list(score.not_finite)} if score.not_finite else {})


def site_numbers(aggregation: Aggregation, participants: Collection[str] = ()) -> dict[str, dict[str, object]]:
    """What every site that sent something, or is one of `participants`, gave and counts: see `answers.SiteInJob`."""
    sites = sorted({*participants, *aggregation.all_stats})
    return {site: _numbers(aggregation, site) for site in sites}


def _numbers(aggregation: Aggregation, site: str) -> dict[str, object]:
    stats, found = aggregation.site_stats(site), aggregation.influence.of(site)
    numbers: dict[str, object] = {
        "updates": stats.folded,
        "refused": stats.refused,
        "mean_staleness": round(stats.mean_staleness, 3),
        "data_wait": round(stats.data_wait, 4),
        "num_examples": stats.num_examples,
    }
    if found is not None:
        numbers |= {"influence": round(found.influence, 4), "share": round(found.share, 4)}
    if found is not None and found.cosine is not None:
        numbers["cosine"] = round(found.cosine, 3)
    return numbers
