"""What the sites' scores of one model are together, as people and programs are told it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fedbus.core.job.scores import Score, means_of
from fedbus.core.job.spreads import OfSite, together
from fedbus.core.protocol import answers as a
from fedbus.core.protocol.spread import Spreads

MOST_INTERVALS = 16_384
"""So many intervals of single sites fit into the answer about a job, beside its scores; of more none is told."""


def scored_model(name: str, scores: Mapping[str, Score], *, failed: Mapping[str, str], models: int) -> a.ScoredModel:
    """Of what each site measured, and why others could not; models: how many the job has, which share the room.

    What is over the sites costs a quarter of a millisecond for each site and metric, see `with_intervals`.
    """
    fits = models * sum(len(s.spreads) + len(s.differences) for s in scores.values()) <= MOST_INTERVALS
    return a.ScoredModel(
        model=name,
        means=means_of(scores.values()),
        scores={
            site: a.SiteScore(
                metrics=dict(score.metrics),
                num_examples=score.num_examples,
                not_finite=score.not_finite,
                intervals=a.intervals_of(score.spreads) if fits else {},
                differences=a.intervals_of(score.differences) if fits else {},
            )
            for site, score in scores.items()
        },
        failed=failed,
    )


def with_intervals(model: a.ScoredModel, scores: Mapping[str, Score]) -> a.ScoredModel:
    """The same, with intervals over the sites."""
    return replace(
        model,
        intervals=over_sites(scores, lambda score: score.spreads),
        differences=over_sites(scores, lambda score: score.differences),
    )


def over_sites(scores: Mapping[str, Score], spreads_of: Callable[[Score], Spreads]) -> dict[str, a.Interval]:
    """The interval of each metric's mean, over the sites that say how sure they are of it."""
    by_metric: dict[str, dict[str, OfSite]] = {}
    for site, score in scores.items():
        for metric, spread in spreads_of(score).items():
            by_metric.setdefault(metric, {})[site] = OfSite(examples=score.num_examples, spread=spread)
    found = ((metric, together(of_sites)) for metric, of_sites in sorted(by_metric.items()))
    return {
        metric: a.Interval(value=one.value, low=one.low, high=one.high, cases=one.cases, sites=one.sites)
        for metric, one in found
        if one is not None
    }
