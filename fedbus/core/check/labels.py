"""Labels: values that are no class of the job, that begin at 1, classes that one site lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fedbus.core.check.compare import in_words, said, share
from fedbus.core.protocol.statistics import Count, Finding, Labels, Statistics

SURE = 10.0
"""So many examples of a class would be expected where none is: by chance that happens once in e^10."""
UNLIKE = 5.0
"""A class is so many times rarer or more frequent at a site than at all others: that is said."""


def of_labels(sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Findings on the labels of each site, by what the job expects and what the others have."""
    having = {site: found.labels for site, found in sites.items() if found.labels is not None and found.labels.counts}
    for site, labels in having.items():
        others = {other: (theirs, _total(theirs, sites[other])) for other, theirs in having.items() if other != site}
        strange = sorted(value for value in map(int_of, labels.counts) if value not in labels.expected)
        if labels.expected and strange:
            yield _strange(site, labels, strange)
        elif labels.expected:
            yield from _missing(site, labels, _total(labels, sites[site]), others)


def int_of(word: str) -> float:
    """A label value as a number; one that is none is no class."""
    try:
        return float(word)
    except ValueError:
        return float("inf")


def _total(labels: Labels, statistics: Statistics) -> Count:
    return statistics.examples if labels.of_masks else sum(count or 0 for count in labels.counts.values())


def _strange(site: str, labels: Labels, strange: list[float]) -> Finding:
    there = {int(value) for value in map(int_of, labels.counts) if value.is_integer()}
    what = "masks" if labels.of_masks else "labels"
    found = _counted(labels)
    classes = f"{labels.expected[0]} to {labels.expected[-1]}"
    if _one_based(there, labels):
        return Finding(
            kind="one-based-labels",
            severity="fault",
            sites=(site,),
            text=f"the {what} of {site} begin at 1: {labels.expected[0]} to {labels.expected[-1]} are expected",
            figure=found,
            advice="subtract 1 from every label, or from every class of the masks, at this site",
        )
    named = ", ".join(f"{value:g}" for value in strange[:5])
    return Finding(
        kind="label-out-of-range",
        severity="fault",
        sites=(site,),
        text=f"{site} has label {named}, which is no class of the job ({classes})",
        figure=found,
        advice="correct these labels, or add the class to the job",
    )


def _one_based(there: set[int], labels: Labels) -> bool:
    """Whether all values, less 1, are classes: with the background among them, or beside a background of 0."""
    expected, first = set(labels.expected), min(labels.expected)
    highest = max(expected) + 1
    if highest not in there or not there:
        return False
    classes = there - {first} if labels.of_masks and first + 1 not in there else there
    return first not in classes and {value - 1 for value in classes} <= expected


def _missing(site: str, labels: Labels, total: Count, others: Mapping[str, tuple[Labels, Count]]) -> Iterator[Finding]:
    """Classes that are not there, or far rarer or more frequent than at every other site."""
    if not others:
        return
    elsewhere = {
        value: [share(found.counts.get(str(value), 0), count) for found, count in others.values()]
        for value in labels.expected
    }
    lacking = [value for value in labels.expected if labels.counts.get(str(value), 0) == 0]
    if _may_be_one_based(labels, elsewhere, total):
        yield Finding(
            kind="one-based-labels",
            severity="warning",
            sites=(site,),
            text=f"the labels of {site} seem to begin at 1: it has none of class {labels.expected[0]}",
            figure=f"{_counted(labels)}; elsewhere {_range(elsewhere[labels.expected[0]])} are {labels.expected[0]}",
            advice="if they do, subtract 1 from every label at this site",
        )
        return
    everywhere = [value for value in lacking if min(elsewhere[value]) * (total or 0) >= SURE]
    somewhere = [v for v in lacking if v not in everywhere and max(elsewhere[v]) * (total or 0) >= SURE]
    for severity, values in (("warning", everywhere), ("notice", somewhere)):
        if values:
            begins = "; do they begin at 1?" if values[0] == min(labels.expected) else "?"
            yield Finding(
                kind="missing-class",
                severity=severity,
                sites=(site,),
                text=f"{site} has no class {in_words([str(value) for value in values])}",
                figure=f"0 of {said(total)}; elsewhere " + ", ".join(_range(elsewhere[value]) for value in values),
                advice=f"are they called otherwise there{begins} what it trains knows nothing of them",
            )
    for value in labels.expected:
        mine, least, most = labels.counts.get(str(value), 0), min(elsewhere[value]), max(elsewhere[value])
        if mine and total and _unlike(mine / total, least, most, total):
            yield Finding(
                kind="label-share",
                severity="notice",
                sites=(site,),
                text=f"class {value} is unusually {'frequent' if mine / total > most else 'rare'} at {site}",
                figure=f"{mine / total:.1%}; elsewhere {_range(elsewhere[value])}",
                advice="other patients, or another habit of labelling?",
            )


def _may_be_one_based(labels: Labels, elsewhere: Mapping[int, Sequence[float]], total: Count) -> bool:
    """Whether the lowest class is missing though others have plenty of it, and the next ones are there."""
    first = min(labels.expected)
    there = sorted(int(value) for word in labels.counts if (value := int_of(word)).is_integer())
    in_a_row = there == list(range(first + 1, first + 1 + len(there))) and len(there) > 1
    return in_a_row and not labels.of_masks and min(elsewhere[first]) * (total or 0) >= SURE


def _counted(labels: Labels) -> str:
    return ", ".join(f"{word}: {said(count)}" for word, count in labels.counts.items())


def _range(shares: Sequence[float]) -> str:
    return f"{min(shares):.1%} to {max(shares):.1%}"


def _unlike(mine: float, least: float, most: float, total: int) -> bool:
    rare = mine * UNLIKE < least and least * total >= SURE
    return rare or (mine > UNLIKE * most and mine * total >= SURE)
