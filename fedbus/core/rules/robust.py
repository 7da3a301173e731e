"""Robust rules: what a buffer says when up to f of its sites lie.

What lives here: which sites of a buffer are believed, from numbers about their deltas. What may not: tensors (the
distances are measured, and coordinates sorted, in `fedbus.tensors.robust`).

    multi_krum     score(i) = sum of |delta_i - delta_j|^2 over the K - f - 2 nearest j;   keep the K - f lowest,
                   then their weighted mean. Blanchard et al. 2017, "Machine Learning with Adversaries", section 4.
    trimmed_mean   per coordinate: drop the f lowest and the f highest, mean of the rest. Yin et al. 2018,
                   arXiv 1803.01498, definition 2.
    median         per coordinate: the median. Yin et al. 2018, definition 1.

The last two look at coordinates and know no weights: every site of the buffer counts alike. All need K >= 2 f + 3
distinct sites, one delta of each (several of one site are averaged first), and deltas in plain text.
Sites with rare data look like liars when the skew is extreme: that is why no rule is on by default.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from fedbus.core.rules.facts import Combination, Folded, Term
from fedbus.core.spec.sections import least_sites

Matrix = Sequence[Sequence[float]]


def squared_distances(gram: Matrix) -> list[list[float]]:
    """Return |a_i - a_j|^2 [K, K] from inner products <a_i, a_j> [K, K]; never below 0, whatever was rounded."""
    indexes = range(len(gram))
    return [[max(0.0, gram[i][i] + gram[j][j] - 2.0 * gram[i][j]) if i != j else 0.0 for j in indexes] for i in indexes]


def krum_scores(distances: Matrix, *, f: int) -> list[float]:
    """Return each one's sum of squared distances to its K - f - 2 nearest others, from distances [K, K].

    ValueError below 2 f + 3: with fewer, f liars could be each other's nearest.
    """
    have = len(distances)
    if have < least_sites(f):
        raise ValueError(f"Krum with f = {f} needs {least_sites(f)} deltas, got {have}")
    others = (sorted(d for j, d in enumerate(row) if j != i) for i, row in enumerate(distances))
    return [math.fsum(near[: have - f - 2]) for near in others]


def multi_krum(distances: Matrix, *, f: int) -> tuple[int, ...]:
    """Return the indexes of the K - f deltas with the lowest scores, rising; of equal scores the first ones."""
    scores = krum_scores(distances, f=f)
    best = sorted(range(len(scores)), key=lambda index: (scores[index], index))
    return tuple(sorted(best[: len(scores) - f]))


def candidates(entries: Iterable[Folded]) -> tuple[Term, ...]:
    """Return the terms of every site's delta: its updates as clipped, averaged; sites in the order of their first."""
    by_site = _by_site(entries)
    return _terms(by_site, dict.fromkeys(by_site, 1.0))


def believed(draft: Combination, entries: Iterable[Folded], gram: Matrix, *, f: int) -> tuple[float, Combination]:
    """Return normaliser and combination of multi-Krum: the mean of the sites it keeps, by the mean weight of each.

    `gram`: inner products [K, K] of the draft's sites.
    """
    by_site = _by_site(entries)
    sites = list(by_site)
    kept = [sites[index] for index in multi_krum(squared_distances(gram), f=f)]
    weights = _weights({site: by_site[site] for site in kept})
    excluded = tuple(site for site in sites if site not in weights)
    terms = _terms(by_site, weights)
    return math.fsum(weights.values()), replace(draft, terms=terms, excluded=excluded)


def without(combination: Combination, entries: Iterable[Folded], sites: Collection[str]) -> tuple[float, Combination]:
    """Return normaliser and combination of what is left when `sites` had never been; `entries`: of the others."""
    terms = tuple(term for term in combination.terms if term.update_id.site not in sites)
    left = dict.fromkeys(term.update_id.site for term in terms)
    weights = _weights({site: of_site for site, of_site in _by_site(entries).items() if site in left})
    if not terms:
        return 1.0, replace(combination, rule="mean", terms=())
    trim = min(combination.trim, (len(left) - 1) // 2)
    normaliser = math.fsum(weights.values()) if combination.rule == "mean" else 1.0
    return normaliser, replace(combination, terms=terms, trim=trim)


def _by_site(entries: Iterable[Folded]) -> dict[str, list[Folded]]:
    found: dict[str, list[Folded]] = {}
    for entry in entries:
        found.setdefault(entry.update_id.site, []).append(entry)
    return found


def _weights(by_site: Mapping[str, Sequence[Folded]]) -> dict[str, float]:
    return {site: math.fsum(e.weight for e in of_site) / len(of_site) for site, of_site in by_site.items()}


def _terms(by_site: Mapping[str, Sequence[Folded]], weights: Mapping[str, float]) -> tuple[Term, ...]:
    return tuple(
        Term(update_id=entry.update_id, factor=weights[site] * entry.clip / len(of_site))
        for site, of_site in by_site.items()
        if site in weights
        for entry in of_site
    )
