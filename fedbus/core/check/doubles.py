"""The same examples twice: in one site's data, and at two sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    for one, other in combinations(sorted(sites), 2):
        common = in_common(sites[one].prints, sites[other].prints)
        if common >= max(1, minimum):
            yield Finding(
                kind="same-examples",
                severity="warning",
                sites=(one, other),
                text=f"{one} and {other} have the same examples",
                figure=f"about {common:,} of {said(sites[one].examples)} and {said(sites[other].examples)}",
                advice="leave them out at one of the two: a test at one site holds what the other was trained on",
            )


def in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many prints two sites share; where one has sent only its smallest, scaled up to all."""
    limit = min((max(prints) for prints in (one, other) if len(prints) >= MOST_PRINTS), default="g")
    shared = len({p for p in one if p <= limit} & {p for p in other if p <= limit})
    if limit == "g":
        return shared
    return round(shared * float(1 << 64) / (int(limit, 16) + 1))
