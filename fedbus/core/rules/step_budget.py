"""Time-boxed local work: how many local steps each site makes, so that all return at a similar period.

What lives here: budgets from measured speeds, and what unequal step counts mean for the mean delta. What may not:
how a budget travels (see `messages.StepBudget`), facts: budgets are measured anew after a restart.

    seconds per step   t_i = .9 t_i + .1 (training seconds / steps) of each update
    budget             H_i = clamp(round(H t_min / t_i), ceil(H / 5), H)

H: the job's `local.steps`; t_min: of the fastest active site. FedCompass (Li et al., ICLR 2024) gives every site a
number of steps in [Q_min, Q_max] by its measured speed, with this running mean; asynchronous DiLoCo (Liu et al. 2024,
arXiv 2401.09135) scales the steps by the speed relative to the fastest (dynamic local updates).

Deltas of unlike length are then normalised by their steps as in FedNova (Wang et al. 2020, arXiv 2007.07481):

    mean delta = tau * sum(w_i delta_i / a_i) / sum(w_i)        tau = sum(w_i a_i) / sum(w_i)

Otherwise a site with a fifth of the steps would have a fifth of the say. With equal a_i this is the weighted mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

KEEP = 0.9
"""Share of the old value in the running mean of seconds per step."""
LEAST_SHARE = 5
"""No site makes fewer than 1 / LEAST_SHARE of the job's steps: a delta of a few steps is mostly noise."""
SHORTEST_STEP_S = 1e-6


class StepBudgets:
    """Measured speeds of the sites of one job whose budget is at most `most` steps."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._step_s: dict[str, float] = {}

    def measured(self, site: str, *, steps: int, seconds: float) -> None:
        """Take in how long a site trained; what cannot have been (no steps, no seconds) is left out."""
        if steps < 1 or not 0.0 < seconds < math.inf:
            return
        step_s = max(seconds / steps, SHORTEST_STEP_S)
        old = self._step_s.get(site)
        self._step_s[site] = step_s if old is None else KEEP * old + (1.0 - KEEP) * step_s

    def budget(self, site: str, active: Collection[str]) -> int | None:
        """Return the steps of `site` beside the `active` sites; None until it and another one were measured."""
        own = self._step_s.get(site)
        others = [self._step_s[other] for other in active if other != site and other in self._step_s]
        if own is None or not others:
            return None
        return step_budget(self._most, step_s=own, fastest_step_s=min(own, *others))


def step_budget(most: int, *, step_s: float, fastest_step_s: float) -> int:
    """Return clamp(round(most * fastest / own), ceil(most / 5), most)."""
    return min(most, max(math.ceil(most / LEAST_SHARE), round(most * fastest_step_s / step_s)))


def counted_steps(steps: int, most: int) -> int:
    """Return the steps that an update is normalised by: what it says, within what a budget can be.

    A site that claims fewer would be folded with more weight than it has.
    """
    return min(most, max(math.ceil(most / LEAST_SHARE), steps))


def effective_steps(parts: Iterable[tuple[float, int]]) -> float:
    """Return tau = sum(w_i a_i) / sum(w_i), from (w_i, a_i)."""
    held = list(parts)
    return math.fsum(weight * steps for weight, steps in held) / math.fsum(weight for weight, _ in held)
