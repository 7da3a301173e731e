"""Whose values a version takes: the newest of every site that still counts, each by its examples.

What lives here: numbers about state that is not learnt (running mean and variance, and their kin). What may not:
tensors (see `tensors.values`).

    factor of a site = min(n^p, ratio fewest^p) min(1, OUTLIER median of the others' norms / its norm)

with n and p as for updates (`num_examples_power`, `num_examples_ratio`). Of two scanners whose intensities differ by a
factor of a thousand neither is wrong, but the mean of their statistics is of use to nobody: the larger one counts less,
and a site that invents values cannot move the version's further than OUTLIER times the others would (two others at
least: between two sites nobody can say who is right). Staleness does not discount: statistics of a slow site are as
true as any.

A site counts until SILENT N versions were made without it, and as long again as it usually takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedbus.core.rules.facts import Folded, Term
from fedbus.core.rules.guards import OTHERS, clip_to_norm
from fedbus.core.rules.peers import fewest_examples
from fedbus.core.rules.site_stats import SILENT, SiteStats
from fedbus.core.rules.sorted_numbers import SortedNumbers
from fedbus.core.rules.strategies.base import examples_weight

OUTLIER = 4.0


def newest_values(
    last: Mapping[str, Folded],
    stats: Mapping[str, SiteStats],
    *,
    version: int,
    now: float,
    power: float,
    most_ratio: float | None,
) -> tuple[Term, ...]:
    """Return the terms of `Committed.values`, in order of sites.

    last: of every site the update that was folded last; stats: its numbers. version: the one before the commit.
    """
    having = {site: fold for site, fold in sorted(last.items()) if fold.values_norm is not None}
    counting = {
        site: fold for site, fold in having.items() if not _silent(fold, stats.get(site), len(last), version, now)
    }
    fewest = fewest_examples((f.num_examples for f in counting.values()), power=power, most_ratio=most_ratio)
    norms = SortedNumbers[float]()
    for site, fold in counting.items():
        norms.put(site, fold.values_norm)
    return tuple(
        Term(
            update_id=fold.update_id,
            factor=examples_weight(fold.num_examples, power=power, fewest=fewest, most_ratio=most_ratio)
            * _trust(fold.values_norm or 0.0, norms.median_without(site, least=OTHERS)),
        )
        for site, fold in counting.items()
    )


def _silent(fold: Folded, stats: SiteStats | None, sites: int, version: int, now: float) -> bool:
    """Whether so much went on without a site that what it knew is of no use any more."""
    if version - (fold.base_version + fold.staleness) < SILENT * sites:
        return False
    return stats is None or stats.is_overdue(now=now)


def _trust(norm: float, usual: float | None) -> float:
    return 1.0 if usual is None else clip_to_norm(norm, OUTLIER * usual)
