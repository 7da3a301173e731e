"""Guards beside a site's own median: how far the delta of a liar or of a site that was away is scaled down.

What lives here: bounds from recent norms, the soft limit of staleness. What may not: what a site remembers of its norms
(see `site_stats`, which has the guard that is on by default: 2 times the site's own recent median).

    clip_to_buffer c    clip = min(1, c median / norm)    median of the recent norms of all other active sites
    after s > 20 N/K    clip = min(1, median / norm)      median of the site's own recent norms; it is told to rebase

The first is opt-in: sites with rare data send the longest deltas, and a bound that the others make starves them. At 2
it cost a sixth of the accuracy on rare classes, at 4 a fiftieth (pilot on digits, three of twelve sites own the rare
classes). It stops scaled attacks. The second drops nothing: an update that took hundreds of versions still says
something about the site's data, once it is no longer than the site's others.
"""

from __future__ import annotations

OTHERS = 2
"""So many other sites make a median that may clip."""
SOFT_LIMIT = 20
"""N sites that train alike are N / K versions apart: SOFT_LIMIT times that is no slow site, but one that was away."""


def soft_limit(*, active: int, size: int) -> int:
    """Return the staleness above which a site is told to rebase: 20 N / K, for a buffer of K = `size`."""
    return SOFT_LIMIT * max(1, active) // max(1, size)


def clip_to_norm(norm: float, longest: float) -> float:
    """Return what scales a delta of `norm` down to `longest`, in [0, 1]; 1 when there is no bound (not positive)."""
    return longest / norm if 0.0 < longest < norm else 1.0


def clip_to_others(norm: float, usual: float | None, *, factor: float | None) -> float:
    """Return what scales a delta down to `factor` times what is usual: the median of the other active sites' medians.

    Each site has one say, the median of its own norms. 1 without a factor, or when nothing is usual (None).
    """
    return 1.0 if factor is None or usual is None else clip_to_norm(norm, factor * usual)


def clip_of_returner(norm: float, own: float | None, others: float | None) -> float:
    """Return what scales a delta of a site that was away down to its own median norm; the others' when it has none."""
    usual = others if own is None else own
    return 1.0 if usual is None else clip_to_norm(norm, usual)
