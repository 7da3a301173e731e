"""The same examples twice: in one site's data, and at two sites."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from itertools import combinations

from fedbus.core.check.compare import said, share
from fedbus.core.protocol.statistics import MOST_PRINTS, Finding, Statistics

MANY_COPIES = 0.05


def of_doubles(sites: Mapping[str, Statistics], *, minimum: int) -> Iterator[Finding]:
    """Findings; fewer than `minimum` examples that two sites have in common are not told."""
    for site, found in sites.items():
        part = share(found.copies, found.examples)
        if found.copies:
            yield Finding(
                kind="copies",
                severity="warning" if part >= MANY_COPIES else "notice",
                sites=(site,),
                text=f"{site} has examples that are copies of others",
                figure=f"{said(found.copies)} of {said(found.examples)}",
                advice="remove what is there twice: it counts twice, and tests may hold what was trained on",
            )
    prints = {site: frozenset(sites[site].prints) for site in sorted(sites)}
    limits = {site: max(sent) for site, sent in prints.items() if len(sent) >= MOST_PRINTS}
    for one, other in combinations(prints, 2):
        common = in_common(prints[one], prints[other], [limits[site] for site in (one, other) if site in limits])
        if common >= max(1, minimum):
            yield Finding(
                kind="same-examples",
                severity="warning",
                sites=(one, other),
                text=f"{one} and {other} have the same examples",
                figure=f"about {common:,} of {said(sites[one].examples)} and {said(sites[other].examples)}",
                advice="leave them out at one of the two: a test at one site holds what the other was trained on",
            )


def in_common(one: Set[str], other: Set[str], limits: Collection[str] = ()) -> int:
    """How many prints two sites share. limits: of one that has sent only its smallest the largest; scaled up to all."""
    shared = one & other
    if not limits:
        return len(shared)
    limit = min(limits)
    return round(sum(p <= limit for p in shared) * float(1 << 64) / (int(limit, 16) + 1))
