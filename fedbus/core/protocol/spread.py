"""How sure a site is of a number that it measured: what leaves instead of a value per case.

A spread is the distribution of the number over test sets like the site's own, as its quantiles at LEVELS; how they are
found is `training.intervals`', what several sites make together `core.job.spreads`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

LEVELS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
    0.5,
    *(0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.995),
)
LOW, HIGH = LEVELS.index(0.025), LEVELS.index(0.975)
"""Where the 95 % interval begins and ends."""
LARGEST = 1e100
"""No value is larger: sums and differences of such stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One number, and its quantiles at LEVELS in order; without quantiles nothing is known of how sure it is.

    cases: test cases with a value; 0: fewer than the site tells. draws: of the bootstrap, behind the quantiles.
    """

    value: float
    cases: int = 0
    draws: int = 0
    quantiles: tuple[float, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None when nothing is known of it."""
        return (self.quantiles[LOW], self.quantiles[HIGH]) if self.quantiles else None


Spreads = Mapping[str, Spread]
"""By metric."""


def check_spread(spread: Spread) -> None:
    """Raise ValueError for what no site of ours says: numbers too large, quantiles that are none."""
    if spread.cases < 0 or spread.draws < 0:
        raise ValueError(f"a spread of {spread.cases} cases and {spread.draws} draws: neither is below 0")
    if len(spread.quantiles) not in (0, len(LEVELS)):
        raise ValueError(f"expected {len(LEVELS)} quantiles or none, got {len(spread.quantiles)}")
    if not all(-LARGEST <= value <= LARGEST for value in (spread.value, *spread.quantiles)):
        raise ValueError(f"a value or a quantile of a spread is not within {LARGEST:g}")
    if any(low > high for low, high in pairwise(spread.quantiles)):
        raise ValueError("the quantiles of a spread do not rise")
