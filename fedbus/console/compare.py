"""What a comparison of two models has come to, in words and as data: how the second differs from the first.

A difference is shown when its 95 % interval does not hold 0; otherwise "no difference can be shown", which is not the
same as "they are alike": the interval says how large a difference may still be. One metric is the question, the others
are beside it: of many intervals some miss 0 by chance alone, about one in twenty, so how many are shown is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedbus.console.outcome import models_of
from fedbus.core.protocol.answers import Interval, JobDetail, ScoredModel, SiteScore, as_json
from fedbus.core.words import counted

NOT_SHOWN = "no difference can be shown"
LEFT_OUT = "Intervals of single sites are left out: with so many sites, metrics and models they are too many to tell."
FIRST, SECOND = "A", "B"
_HIGHER = frozenset(
    ["dice", "auc", "auroc", "auprc", "accuracy", "acc", "f1", "iou", "jaccard", "precision", "recall", "kappa", "r2"]
)
_LOWER = frozenset(
    ["loss", "error", "errors", "mae", "mse", "rmse", "nll", "hausdorff", "hd", "assd", "distance", "brier", "ece"]
)
"""Words of metrics of which more is better, or less; of others it is only said which is higher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of one metric: B less A over all sites that say it, and at each. question: whether it is what was asked."""

    metric: str
    question: bool
    overall: Interval | None
    sites: Mapping[str, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Of the models named `first` and `second`. differences: that of the question first. missing: why a site says none.

    values: by metric, the means of A and of B over all sites. left_out: the sites' own differences, for they are too
    many.
    """

    first: str
    second: str
    differences: Sequence[Difference]
    missing: Mapping[str, str]
    values: Mapping[str, tuple[float | None, float | None]]
    left_out: bool = False


def comparisons_of(detail: JobDetail) -> list[Comparison]:
    """Return how each later model differs from the first; empty for a job that compares none.

    The question is the metric that the job's spec names, else `usual_question`.
    """
    metric = detail.spec.get("metric")
    models = models_of(detail)
    if not detail.spec.get("compare") or len(models) < 2:
        return []
    return [_comparison(models[0], model, metric) for model in models[1:]]


def _comparison(first: ScoredModel, second: ScoredModel, metric: str | None) -> Comparison:
    of_sites = {name for score in second.scores.values() for name in score.differences}
    names = sorted(of_sites.union(second.differences))
    question = metric if metric is not None else usual_question(names)
    found = [
        Difference(
            metric=name,
            question=name == question,
            overall=second.differences.get(name),
            sites={site: s.differences[name] for site, s in second.scores.items() if name in s.differences},
        )
        for name in sorted(names, key=lambda name: (name != question, name))
    ]
    sites = sorted({*first.scores, *first.failed, *second.scores, *second.failed})
    missing = {site: why for site in sites if (why := _why_missing(first, second, site))}
    means = {name: (first.means.get(name), second.means.get(name)) for name in {*first.means, *second.means}}
    return Comparison(
        first=first.model,
        second=second.model,
        differences=found,
        missing=missing,
        values=means,
        left_out=second.sites_intervals_left_out,
    )


def _why_missing(first: ScoredModel, second: ScoredModel, site: str) -> str:
    for letter, model in ((FIRST, first), (SECOND, second)):
        if site in model.failed:
            return f"it could not score {letter}: {model.failed[site]}"
        if site not in model.scores:
            return f"it did not score {letter}"
    if not second.sites_intervals_left_out and not second.scores.get(site, SiteScore()).differences:
        return "it says no paired difference: its release, its task or a restart between the two models"
    return ""


def usual_question(names: Sequence[str]) -> str | None:
    """The metric that is most likely the question: a known one of which more is better, else the first."""
    plain = [name for name in names if "/" not in name]
    for wanted in ("dice", "auc", "accuracy", "f1", "iou"):
        if wanted in plain:
            return wanted
    return next(iter([*plain, *names]), None)


def is_shown(interval: Interval) -> bool:
    """Whether a difference is more than chance explains, at 95 %."""
    return interval.low is not None and interval.high is not None and not interval.low <= 0 <= interval.high


def verdict(metric: str, interval: Interval) -> str:
    """One difference in words, without its numbers: better, worse, higher, lower, or that none can be shown."""
    if interval.low is None:
        return "not known: too few test cases" if not interval.cases else "not known"
    if not is_shown(interval):
        return NOT_SHOWN
    up, lower = interval.value > 0, lower_is_better(metric)
    if lower is None:
        return "higher" if up else "lower"
    return "better" if up is not lower else "worse"


def lower_is_better(metric: str) -> bool | None:
    """Whether less of a metric is better, by its name; None for one that is not known."""
    words = set(re.findall(r"[a-z]+[12]?", metric.lower()))
    if words & _LOWER:
        return True
    return False if words & _HIGHER else None


def sentences(comparison: Comparison) -> list[str]:
    """The answer to the question: over all sites, then at each; and how far it may be trusted."""
    question = next((one for one in comparison.differences if one.question), None)
    if question is None:
        return ["Nothing can be compared: no site says a paired difference.", *_missing(comparison)]
    left_out = [LEFT_OUT] if comparison.left_out else []
    return [_overall(question), *_at_sites(question), *left_out, *_missing(comparison), *_beside(comparison)]


def _overall(one: Difference) -> str:
    found = one.overall
    if found is None:
        return f"Of {one.metric} no interval is known over the sites: each has too few test cases."
    where = f"over {counted(found.sites, 'site')}, {counted(found.cases, 'case')}"
    said = verdict(one.metric, found)
    if said == NOT_SHOWN:
        text = f"No difference in {one.metric} can be shown between {FIRST} and {SECOND}: {SECOND} less {FIRST}"
        return f"{text} is {found.value:+.3f} ({interval_words(found)}) {where}."
    size = f"{abs(found.value):.3f} {one.metric} ({interval_words(found)}) {where}"
    return f"{SECOND} is {said} than {FIRST} by {size}."


def interval_words(interval: Interval) -> str:
    """The interval of a difference, its ends with their signs."""
    if interval.low is None or interval.high is None:
        return "no interval"
    return f"95 % interval of {SECOND} less {FIRST} {interval.low:+.3f} to {interval.high:+.3f}"


def _at_sites(one: Difference) -> Iterator[str]:
    by_verdict: dict[str, list[str]] = {}
    for site, found in sorted(one.sites.items()):
        by_verdict.setdefault(verdict(one.metric, found), []).append(site)
    for said, sites in sorted(by_verdict.items()):
        where = ", ".join(sites)
        if said == NOT_SHOWN:
            yield f"At {where} {NOT_SHOWN}."
        elif said.startswith("not known"):
            yield f"At {where} the difference is {said}."
        else:
            yield f"At {where} {SECOND} is {said}."


def _missing(comparison: Comparison) -> Iterator[str]:
    for site, why in sorted(comparison.missing.items()):
        yield f"{site} is not part of it: {why}."


def _beside(comparison: Comparison) -> Iterator[str]:
    shown = sum(len(one.sites) + (one.overall is not None) for one in comparison.differences)
    if shown > 1:
        by_chance = max(1, round(shown / 20))
        yield (
            f"{shown} intervals are given: of so many about {by_chance} would miss 0 by chance alone. The question is"
            " the one above; the others are beside it."
        )


def as_data(comparison: Comparison) -> dict[str, object]:
    """The comparison for machines, what `-o json` prints beside the job."""
    return {
        "first": comparison.first,
        "second": comparison.second,
        "sentences": sentences(comparison),
        "differences": [
            {
                "metric": one.metric,
                "question": one.question,
                "overall": None if one.overall is None else _with_verdict(one.metric, one.overall),
                "sites": {site: _with_verdict(one.metric, found) for site, found in one.sites.items()},
            }
            for one in comparison.differences
        ],
        "missing": dict(comparison.missing),
        "values": {name: list(values) for name, values in sorted(comparison.values.items())},
    }


def _with_verdict(metric: str, interval: Interval) -> dict[str, object]:
    return {**as_json(interval), "says": verdict(metric, interval)}
