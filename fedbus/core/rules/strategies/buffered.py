"""FedBuff: whoever sends fills the buffer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fedbus.core.rules.facts import Folded
from fedbus.core.rules.strategies.base import (
    Buffer,
    Evidence,
    Plan,
    Share,
    buffer_size,
    buffer_words,
    examples_weight,
    flush_at,
    flush_reason,
)

MAX_BOOST = 3.0
"""The rate correction is at most MAX_BOOST * N / K, so that a site that is late on purpose gains little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffered:
    """FedBuff (Nguyen et al. 2022, arXiv 2106.06639): commit when K updates are in the buffer, whoever sent them.

    weight = n^p (1 + mean s)^b f(s). K = the given buffer or max(2, ceil(N / 3)), never more than the N active sites.
    `normalise` 'weights': divided by the sum of weights, so that late phases keep their step length. 'buffer': the
    textbook, divided by K; with p > 0 by the sum of n^p instead, which is the same mean with the sites' sizes evened
    out, so that staleness shortens the step and the unit of n does not.
    `rate_correction` b: a site that restarts at once sends one update per 1 + s versions, so b = 1 gives every site
    the same influence per unit of time; the running mean of s counts this update in.
    `flush_after_s`: also commit so long after the first update in the buffer, with what is there (at least that one).
    """

    power: float
    staleness_weight: Callable[[int], float]
    most_ratio: float | None = None
    buffer: int | None = None
    flush_after_s: float | None = None
    normalise_by_weights: bool = True
    rate_correction: float = 0.0
    wait_for_new_version: bool = False

    def size(self, active: int) -> int:
        return buffer_size(self.buffer, active)

    def share(self, evidence: Evidence) -> Share:
        own = examples_weight(
            evidence.num_examples, power=self.power, fewest=evidence.fewest_examples, most_ratio=self.most_ratio
        ) * self.staleness_weight(evidence.staleness)
        if self.rate_correction == 0.0:
            return Share(weight=own)
        cap = MAX_BOOST * max(1, evidence.active) / self.size(evidence.active)
        boost = min(1.0 + evidence.site.staleness_with(evidence.staleness), cap)
        return Share(weight=own * math.pow(boost, self.rate_correction))

    def plan(self, buffer: Buffer) -> Plan:
        return Plan(normaliser=self.coefficients(buffer)[0])

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        if self.normalise_by_weights:
            return sum_of_weights(buffer.entries), 0.0
        power = self.power
        return math.fsum(examples_weight(entry.num_examples, power=power) for entry in buffer.entries), 0.0

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        return len(buffer.entries), self.size(len(buffer.active))

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        have, size = self.fill(buffer)
        if have >= size:
            return f"{have} of {size} updates are in the buffer"
        return flush_reason(buffer, self.flush_after_s, now=now)

    def due_at(self, buffer: Buffer) -> float | None:
        return flush_at(buffer, self.flush_after_s)

    def waiting_for(self, buffer: Buffer) -> str:
        return buffer_words(self.fill(buffer), "more update")


def sum_of_weights(entries: Sequence[Folded]) -> float:
    """Return the exactly rounded sum, which does not depend on the order."""
    return math.fsum(entry.weight for entry in entries)
