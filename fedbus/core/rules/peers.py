"""What the other sites of a job bound one site by, from its first update on: length, examples claimed, frequency.

What lives here: bounds from what the others sent, for whom a site's own history (see `site_stats`) says nothing yet, or
is what a site that lies has made it. What may not: guards that a job opts into (see `guards`).

    length      |delta| <= LONGEST median of the others' medians            two others have sent something
                |delta| <= FIRST norm of the model                          before that, where that is known
    examples    n counts as at most MOST_EXAMPLES median of the others' n
    frequency   an update every 1 / MOST_OFTEN of the others' median period

Every bound is wide: an honest site is hardly ever above it, and a delta that is above is only scaled down. A site with
rare cases sends deltas several times as long as the others', one that makes 30 times the steps up to 30 times, and both
keep that say. First deltas are .2 to .5 times the model (digits, Fashion-MNIST), and at most about as long as it.
A median over two others at least: no single site moves it far, and between two sites nobody can say who is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median_low

from fedbus.core.rules.site_stats import ENOUGH, RECENT, SMALL_NORM, SiteStats

OTHERS = 2
"""So many other sites make a median."""
LONGEST = 30.0
FIRST = 4.0
MOST_EXAMPLES = 100
MOST_OFTEN = 50
NEXT_TO_NOTHING = 1e-3
"""Deltas of this share of the model's norm are no measure of others: sites that have learnt all bound nobody."""
SMALL_RMS, UNKNOWN_RMS = 0.01, 10.0
"""A model whose elements are below the first, such as one that begins with zeros, does not say how long its deltas will
be; it counts as though they were at the second."""


def model_scale(norm: float, numel: int) -> float:
    """Return the length that deltas of a model are measured by: its norm; of one that is next to zero, by its size."""
    return norm if norm >= SMALL_RMS * math.sqrt(numel) else UNKNOWN_RMS * math.sqrt(numel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What the other sites usually send; None while it says nothing, with fewer than OTHERS of them.

    usual_norm: the median of their median norms. usual_examples: the lower median. usual_period_s: the median.
    """

    usual_norm: float | None = None
    usual_examples: int | None = None
    usual_period_s: float | None = None

    def longest(self, scale: float | None) -> float:
        """Return the length that a delta is scaled down to; infinite while nothing is known.

        scale: of the model, see `model_scale`; None: unknown.
        """
        if self.usual_norm is None:
            return math.inf if scale is None else FIRST * scale
        return LONGEST * max(self.usual_norm, SMALL_NORM if scale is None else NEXT_TO_NOTHING * scale)

    def believed_examples(self, claimed: int) -> int:
        """Return how many examples a site counts with that claims so many."""
        return claimed if self.usual_examples is None else min(claimed, MOST_EXAMPLES * self.usual_examples)

    def too_soon(self, own: SiteStats, *, now: float) -> bool:
        """Whether an update at `now` comes too soon after the site's last one, and so did its last ones on average."""
        if own.last_at is None or len(own.gaps) < ENOUGH or self.usual_period_s is None:
            return False
        gap_s = now - own.last_at
        mean_s = fmean((*own.gaps, gap_s)[-RECENT:])
        if gap_s <= 0.0 or mean_s <= 0.0:
            return False  # a clock that stands still, or began anew
        return max(gap_s, mean_s) * MOST_OFTEN < self.usual_period_s


def fewest_examples(counts: Iterable[int], *, power: float, most_ratio: float | None) -> float:
    """Return the count that bounds what the others weigh, see `strategies.base.examples_weight`; 1 without counts.

    The fewest there is; but a claim of a single example must not make all others alike: nobody is bounded below what
    the (lower) median weighs.
    """
    held = list(counts)
    return bounded_fewest(min(held), median_low(held), power=power, most_ratio=most_ratio) if held else 1


def bounded_fewest(fewest: int, middle: int, *, power: float, most_ratio: float | None) -> float:
    """Return `fewest_examples` of counts with this least one and this lower median."""
    if most_ratio is None or power == 0.0:
        return fewest
    return max(fewest, middle / math.pow(most_ratio, 1.0 / power))
