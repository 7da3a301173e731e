"""How far a commit moves the params, beside the server learning rate: `Committed.step`, without a knob.

What lives here: the one place where the step is decided, from numbers that facts give again. What may not: what the
mean delta is made of (see `strategies`), the optimizer's own arithmetic (see `tensors.server_optimizer`).

    lr: auto    eta = MARGIN / sum over sites of p_i a_i / m(s_i);   BEGIN * K / N before anything is known
                m(s) = 2 sin(pi / (4 s + 2)); with momentum see `stable_below`

a_i: the site's secant (see `tensors.secant`), how much less it asks for per distance that the model came; >= 0.
s_i: its running staleness. p_i: its share, n^p over the sum. K: buffer aimed at; N: active sites.

Why. Each commit adds eta v, and v answers with eta a less, s versions later: a feedback with delay. Such a loop,
x(t + 1) = x(t) - g x(t - s), is stable for g < m(s) and only then (Levin and May 1976, Theor. Popul. Biol. 9; for SGD
with delays Koloskova et al. 2022, arXiv 2206.08307, bound the same product of step, curvature and delay): m is 2
without delay, 1 at s = 1, and near pi / (2 s + 1) from then on. The step keeps a gain margin, as every control loop
does. a itself rises with eta, when the model begins to swing across a valley, so that the rule finds the edge by itself
and keeps below it. It needs no other setting: where the local learning rate is three times larger, a is; where sites
are slower, s is. What the digits gain by a longer step, the CNN pays: MARGIN stands where neither loses much.

Training that is stable says a <= 1. More than 1 says that the site itself overshoots: its local learning rate is too
long for where the model is, and a shorter step of the server is what makes up for it. So a is not cut off at 1.
Nothing is known at first, and a step that is too long there can kill a network for good. So the first step is BEGIN of
K / N, which is what FedAvg makes of as many updates, and it grows per commit by a factor of 1 while no site has been
measured and of GROW when all have. What each constant does was measured: see deploy/docs/figures.md.

The step shrinks by at most SHRINK per commit and stays within [LEAST, MOST]. a_i is clipped to MOST_SECANT and counts
with p_i, and from three sites on no site's part of the sum counts for more than MOST_OF_LOAD times all others'
together: a site that lies, about a_i or by old base versions about s_i, moves the load by at most so much.

A network with running statistics hides its edge from the secants: batch normalisation makes a layer the same for
weights of any length, so that a step too long shows in their length, and in statistics of other weights, instead. Where
a rule adds what it remembers of all sites to every version (calibrated), such a network gets a step of K / N at most,
with which so many updates move the model as far as in FedAvg.

`kind: fadas` has a rule of its own: step = 1 / s_max when s_max > tau_c, else 1; s_max: the largest staleness in the
buffer, at most the soft limit (see `guards`). FADAS (Wang et al. 2024, arXiv 2407.18365) writes min(lr, 1 / s_max) for
it, which never binds at the lr of an adaptive optimizer; its released code multiplies, and so does this.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from fedbus.core.rules.facts import Folded
from fedbus.core.rules.guards import soft_limit
from fedbus.core.rules.peers import fewest_examples
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.rules.strategies.base import examples_weight
from fedbus.core.spec.training import TrainingSpec

MARGIN = 0.45
BEGIN = 0.5
GROW, SHRINK = 4.0, 0.5
LEAST, MOST = 0.1, 2.0
MOST_OF_LOAD = 3.0
"""One site's word makes the load at most four times what the others make it: it can slow the step, not stop it."""
FLAT = 1e-3
"""A load below this is none: where nothing answers, the longest step is as good as any."""


def step_of(
    spec: TrainingSpec,
    entries: Sequence[Folded],
    stats: Mapping[str, SiteStats],
    *,
    active: Collection[str],
    size: int,
    before: float | None,
    remembers: bool = False,
) -> float:
    """Return the step of a commit of `entries`, > 0.

    stats: numbers of the sites; active: those that count. size: K. before: the step of the last commit; None for the
    first. remembers: whether the rule adds what it knows of all sites.
    """
    if spec.server_optimizer.kind == "fadas":
        # one that was away for long, or says so, does not stop the others: it was told to rebase
        limit = soft_limit(active=len(active), size=size)
        most_stale = max(min(entry.staleness, limit) for entry in entries)
        return delay_adaptive(most_stale, tau_c=spec.server_optimizer.tau_c)
    if not spec.adapts_step:
        return 1.0
    sites = {site: stats.get(site, SiteStats()) for site in sorted(active)}
    counts = {site: of_site.num_examples for site, of_site in sites.items() if of_site.num_examples}
    power, ratio = spec.num_examples_power, spec.num_examples_ratio
    fewest = fewest_examples(counts.values(), power=power, most_ratio=ratio)
    shares = {
        site: examples_weight(count, power=power, fewest=fewest, most_ratio=ratio) for site, count in counts.items()
    }
    has_statistics = any(entry.values_norm is not None for entry in entries)
    most = min(MOST, size / max(1, len(sites))) if remembers and has_statistics else MOST
    momentum = spec.server_optimizer.heavy_ball
    step = server_step(size=size, sites=sites, shares=shares, before=before, momentum=momentum)
    return min(step, most)


def server_step(
    *,
    size: int,
    sites: Mapping[str, SiteStats],
    shares: Mapping[str, float],
    before: float | None,
    momentum: float = 0.0,
) -> float:
    """Return the step of a commit, > 0.

    size: K. sites: numbers of the N active ones. shares: their p_i up to a factor, of those that have sent something.
    before: the step of the last commit; None for the first. momentum: the heavy ball's, in [0, 1).
    """
    old = BEGIN * min(1.0, size / max(1, len(sites))) if before is None else before
    load = loop_load({site: sites[site] for site in shares}, shares, momentum=momentum)
    if load is None:
        return old
    measured = sum(stats.secant is not None for stats in sites.values()) / len(sites)
    grow = 1.0 + (GROW - 1.0) * measured
    return min(max(MARGIN / max(load, FLAT), old * SHRINK, LEAST), old * grow, MOST)


def loop_load(sites: Mapping[str, SiteStats], shares: Mapping[str, float], *, momentum: float = 0.0) -> float | None:
    """Return sum p_i a_i / m(s_i): at a step of 1 over this, the loop begins to swing. None: no site has a secant yet.

    A site that has none counts with the mean of the others.
    """
    known = {site: a for site, stats in sites.items() if (a := stats.secant) is not None}
    weight = math.fsum(shares[site] for site in known)
    if not weight:
        return None
    mean = math.fsum(shares[site] * a for site, a in known.items()) / weight
    total = math.fsum(shares[site] for site in sites)
    return math.fsum(
        _bounded(
            [
                shares[site] / total * known.get(site, mean) / stable_below(stats.running_staleness or 0.0, momentum)
                for site, stats in sites.items()
            ]
        )
    )


def _bounded(parts: Sequence[float]) -> list[float]:
    """Return the parts of a load, each at most MOST_OF_LOAD times all others together; of two neither is bounded."""
    whole = math.fsum(parts)
    return [min(part, MOST_OF_LOAD * (whole - part)) for part in parts] if len(parts) > 2 else list(parts)


def stable_below(staleness: float, momentum: float = 0.0) -> float:
    """Return m(s), the gain below which a loop with a delay of `staleness` versions is stable: 2 at 0, 1 at 1.

    With a heavy ball (m = b m + d, x += (1 - b) m) the loop is (z - 1)(z - b) + g (1 - b) z^(1 - s) = 0: d is smoothed
    before it moves the model, which delays it more. On the edge z = exp(i w), with w the least angle at which what
    comes back is turned by half a circle: s w + w / 2 + arg(1 - b exp(-i w)) = pi / 2. Then g is what makes its size 1.
    """
    if not momentum:
        return 2.0 * math.sin(math.pi / (4.0 * staleness + 2.0))
    low, high = 0.0, math.pi
    for _ in range(60):
        w = (low + high) / 2.0
        turned = (staleness + 0.5) * w + math.atan2(momentum * math.sin(w), 1.0 - momentum * math.cos(w))
        low, high = (w, high) if turned < math.pi / 2.0 else (low, w)
    filtered = math.sqrt(1.0 - 2.0 * momentum * math.cos(low) + momentum * momentum)
    return 2.0 * math.sin(low / 2.0) * filtered / (1.0 - momentum)


def delay_adaptive(most_stale: int, *, tau_c: int) -> float:
    """Return the step in (0, 1] of a buffer whose stalest update is `most_stale` versions old."""
    return 1.0 if most_stale <= max(1, tau_c) else 1.0 / most_stale
