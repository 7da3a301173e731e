"""The result of a job that has ended, however it did, as it is kept in the ledger and shown: JSON-able data."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedbus.aggregator.job.best import Best
from fedbus.core.job.scores import Score, mean_of
from fedbus.core.job.training import TrainingJob, ranking_of
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
    }


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
    return found | ({"scores": scores} if scores else {})


def _final_mean(life: TrainingJob, version: int, metric: str) -> float | None:
    """The mean of what the sites measured of a version at the end; None: nothing, or it is of no use somewhere."""
    scores = life.final_scores(version).values()
    found = [(score.num_examples, score.metrics[metric]) for score in scores if metric in score.metrics]
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


def _score(score: Score, last: int) -> dict[str, object]:
    told: dict[str, object] = {"metrics": dict(score.metrics), "num_examples": score.num_examples}
    if score.version != last:
        told["version"] = score.version
    return told | ({"not_finite": list(score.not_finite)} if score.not_finite else {})


def site_numbers(aggregation: Aggregation, participants: Collection[str] = ()) -> dict[str, dict[str, object]]:
    """Updates folded and refused, mean staleness and waiting for data, of every site that sent something.

    And of all `participants`.
    """
    sites = sorted({*participants, *aggregation.all_stats})
    stats = {site: aggregation.site_stats(site) for site in sites}
    return {
        site: {
            "updates": of_site.folded,
            "refused": of_site.refused,
            "mean_staleness": round(of_site.mean_staleness, 3),
            "data_wait": round(of_site.data_wait, 4),
        }
        for site, of_site in stats.items()
    }
