"""Why an update is refused before it is folded.

What lives here: what its manifest and the norm of its delta must be, as reasons that its site can act on. What may not:
how far a delta that is folded is scaled down (see `guards`, `site_stats`).
"""

from __future__ import annotations

import math
from statistics import median

from fedbus.core.rules.facts import Arrival
from fedbus.core.rules.peers import MOST_OFTEN, Peers
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.spec.training import TrainingSpec

MAX_EXAMPLES = 10**12


def reason_against(spec: TrainingSpec, site: str, *, version: int, base_version: int, num_examples: int) -> str | None:
    """Return why an update is refused for what its manifest says while `version` is the newest; None: it is not."""
    sites, limit = spec.sites, spec.max_staleness
    if sites is not None and site not in sites:
        return f"site {site} is not one of the job's sites: {', '.join(sites)}"
    if base_version < 0:
        return f"base version {base_version} is negative"
    if base_version > version:
        return f"base version {base_version} is ahead of version {version}"
    if not 0 < num_examples <= MAX_EXAMPLES:
        return f"num_examples must be 1 to {MAX_EXAMPLES}, got {num_examples}"
    staleness = version - base_version
    if limit is not None and staleness > limit:
        return f"staleness {staleness} is above the job's max_staleness {limit}; train from version {version}"
    return None


def reason_against_frequency(site: str, own: SiteStats, peers: Peers, *, now: float) -> str | None:
    """Return why an update is refused for coming so soon after the one before; None: it is not."""
    if not peers.too_soon(own, now=now):
        return None
    return (
        f"site {site} sends more than {MOST_OFTEN} times as often as the median of the others; what comes sooner is "
        "not folded: give it more local steps"
    )


def reason_against_norm(arrival: Arrival, own: SiteStats) -> str | None:
    """Return why an update is refused for the norm of its delta; `own`: numbers of its site. None: it is not."""
    if not (math.isfinite(arrival.norm) and arrival.norm >= 0.0):
        return "delta has NaN or infinite values"
    longest = own.longest()
    if arrival.norm <= longest:
        return None
    usual = f", whose last {len(own.norms)} had a median of {median(own.norms):.3g}" if own.norms else ""
    return f"delta has norm {arrival.norm:.3g}: at most {longest:.3g} is folded from {arrival.update_id.site}{usual}"
