"""The result of a finished job, as it is kept in the ledger and shown: JSON-able data."""

from __future__ import annotations

from fedbus.core.aggregation import Aggregation
from fedbus.core.job import Job


def result_of(life: Job, aggregation: Aggregation, *, exported: str) -> dict[str, object]:
    """What is kept of a finished job; `exported` is the file with the last version's params."""
    return {
        "reason": life.reason,
        "version": aggregation.version,
        "updates": aggregation.updates,
        "rule": aggregation.chosen,
        "exported": exported,
        "scores": {
            site: {"metrics": dict(score.metrics), "num_examples": score.num_examples}
            for site, score in life.final_scores(aggregation.version).items()
        },
        "sites": site_numbers(aggregation),
    }


def site_numbers(aggregation: Aggregation) -> dict[str, dict[str, object]]:
    """Updates folded and refused and mean staleness of every site."""
    return {
        site: {
            "updates": stats.folded,
            "refused": stats.refused,
            "mean_staleness": round(stats.mean_staleness, 3),
        }
        for site, stats in sorted(aggregation.all_stats.items())
    }
