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
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def least_sites(f: int) -> int:
    """Return how many distinct sites a buffer needs for `f` of them to lie: 2 f + 3."""
    return 2 * f + 3


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
