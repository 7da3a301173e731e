"""How far a commit moves the params, beside the server learning rate: `Committed.step`, without a knob.

What lives here: the one place where the step is decided, from numbers that facts give again. What may not: what the
mean delta is made of (see `strategies`), the optimizer's own arithmetic (see `tensors.server_optimizer`).

    lr: auto    eta = GAIN / sum over sites of p_i (1 + s_i) a_i; K / N before anything is known

a_i: the site's secant (see `tensors.secant`), how much less it asks for per distance that the model came; in [0, 1].
s_i: its running staleness. p_i: its share, n^p over the sum. K: buffer aimed at; N: active sites.

Why. Each commit adds eta v, and v answers with eta a less; but what a site has sent goes on acting until it sends
again, 1 + s_i versions later. So eta sum p (1 + s) a is the loop gain of a feedback with delay. Such a loop swings from
about 1 on and diverges from pi/2 on (x' = -g x(t - 1) is stable for g < pi/2; Koloskova et al. 2022, arXiv 2206.08307,
bound SGD with delays by the same product of step, curvature and delay); far below 1 it is only slow. a itself rises
with eta, when the model begins to swing across a valley, so that the rule finds the edge by itself and keeps below it.
It needs no other setting: where the local learning rate is three times larger, a is; where sites are slower, s is.

The step grows by at most GROW and shrinks by at most SHRINK per commit, within [LEAST, MOST]. a_i is clipped and counts
with p_i, so that a site that lies about it moves the step by its share and no more.

`kind: fadas` has a rule of its own: step = 1 / s_max when s_max > tau_c, else 1; s_max: the largest staleness in the
buffer. FADAS (Wang et al. 2024, arXiv 2407.18365) writes min(lr, 1 / s_max) for it, which never binds at the lr of an
adaptive optimizer; its released code multiplies, and so does this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedbus.core.site_stats import SiteStats

GAIN = 0.9
GROW, SHRINK = 1.4, 0.7
LEAST, MOST = 0.1, 2.0
FLAT = 1e-3
"""A loop gain per step below this is none: where nothing answers, the longest step is as good as any."""


def server_step(
    *, size: int, sites: Mapping[str, SiteStats], shares: Mapping[str, float], before: float | None
) -> float:
    """Return the step of a commit, > 0.

    size: K. sites: numbers of the N active ones. shares: their p_i up to a factor, of those that have sent something.
    before: the step of the last commit; None for the first.
    """
    first = min(1.0, size / max(1, len(sites)))
    old = first if before is None else before
    gain = loop_gain({site: sites[site] for site in shares}, shares)
    if gain is None:
        return old
    return min(max(GAIN / max(gain, FLAT), old * SHRINK, LEAST), old * GROW, MOST)


def loop_gain(sites: Mapping[str, SiteStats], shares: Mapping[str, float]) -> float | None:
    """Return sum p_i (1 + s_i) a_i, what eta is multiplied with; None while no site has a secant.

    A site that has none yet counts with the mean of the others.
    """
    known = {site: a for site, stats in sites.items() if (a := stats.secant) is not None}
    weight = math.fsum(shares[site] for site in known)
    if not weight:
        return None
    mean = math.fsum(shares[site] * a for site, a in known.items()) / weight
    total = math.fsum(shares[site] for site in sites)
    return math.fsum(
        shares[site] / total * (1.0 + (stats.running_staleness or 0.0)) * known.get(site, mean)
        for site, stats in sites.items()
    )


def delay_adaptive(most_stale: int, *, tau_c: int) -> float:
    """Return the step in (0, 1] of a buffer whose stalest update is `most_stale` versions old."""
    return 1.0 if most_stale <= max(1, tau_c) else 1.0 / most_stale
