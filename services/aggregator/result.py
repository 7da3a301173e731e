"""The result of a finished job, as it is kept in the ledger and shown: JSON-able data."""

from __future__ import annotations

from collections.abc import Collection

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
        "sites": site_numbers(aggregation, life.participants),
    }


def site_numbers(aggregation: Aggregation, participants: Collection[str] = ()) -> dict[str, dict[str, object]]:
    """Updates folded and refused and mean staleness of every site that sent something or is one of `participants`."""
    sites = sorted({*participants, *aggregation.all_stats})
    stats = {site: aggregation.site_stats(site) for site in sites}
    return {
        site: {
            "updates": of_site.folded,
            "refused": of_site.refused,
            "mean_staleness": round(of_site.mean_staleness, 3),
        }
        for site, of_site in stats.items()
    }
