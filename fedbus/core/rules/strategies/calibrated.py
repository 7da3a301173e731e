"""CA2FL: what a site sent last stands in for it until it sends again."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedbus.core.rules.facts import Term
from fedbus.core.rules.memory import Slot
from fedbus.core.rules.site_stats import SILENT
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """CA2FL (Wang et al., ICLR 2024, "Tackling the data heterogeneity in asynchronous FL with cached update
    calibration"), with sites weighted by w = n^p:

        v = h + N/|S| sum over S of p_i (delta_i - h_i),    then h_i = delta_i;    h = sum of p_i h_i,  p_i = w_i / P

    N sites are known: remembered, or in the buffer S (one slot a site; of several updates of one site the mean counts).
    P is the sum of their w. A newcomer has no h_i; h stands for it. So also for what a site's weight has grown by:
    with D = sum over S of (w_i - w_i remembered), H = memory sum = sum of w_i h_i, Q = sum of the remembered w_i,

        v = buffer / normaliser + memory H,   normaliser = |S| P / N,   memory = (1 - D / normaliser) / Q

    With all N sites in the buffer this is FedAvg. Staleness does not discount: the slow sites are the ones it would
    starve. A site is forgotten after 4 N silent versions in which it had the time for two updates, and not when it
    leaves: most come back, and until then what it knew stays in the model.
    """

    power: float
    most_ratio: float | None = None
    buffer: int | None = None
    flush_after_s: float | None = None
    wait_for_new_version: bool = False

    def size(self, active: int) -> int:
        size = buffer_size(self.buffer, active)
        # of distinct sites: without a buffer given, never all of them, or everybody would wait for the slowest
        return size if self.buffer is not None else min(size, max(1, active - 1))

    def share(self, evidence: Evidence) -> Share:
        weight = examples_weight(
            evidence.num_examples, power=self.power, fewest=evidence.fewest_examples, most_ratio=self.most_ratio
        )
        slot, remembered = evidence.slot, evidence.remembered
        if slot is None:
            return Share(weight=weight, also=remembered.negative() if remembered else ())
        return Share(weight=weight / (slot.count + 1), also=_rescaled(slot, remembered))

    def plan(self, buffer: Buffer) -> Plan:
        known, slots = buffer.memory.sites, buffer.memory.buffer
        most = SILENT * len(known.keys() | slots.keys())
        forgotten = {
            site
            for site, slot in known.items()
            if site not in slots and buffer.version - slot.version >= most and _overdue(site, buffer)
        }
        normaliser, memory = self.coefficients(buffer, forgotten=forgotten)
        corrections = tuple(term for site in sorted(forgotten) for term in known[site].negative())
        return Plan(normaliser=normaliser, memory=memory, corrections=corrections, remembers=True)

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        known = {site: slot for site, slot in buffer.memory.sites.items() if site not in forgotten}
        return _coefficients(known, buffer.memory.buffer)

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        return len(buffer.sites), self.size(len(buffer.active))

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        have, size = self.fill(buffer)
        if have >= size:
            return f"updates of {have} of {size} sites are in the buffer"
        return flush_reason(buffer, self.flush_after_s, now=now)

    def due_at(self, buffer: Buffer) -> float | None:
        return flush_at(buffer, self.flush_after_s)

    def waiting_for(self, buffer: Buffer) -> str:
        return buffer_words(self.fill(buffer), "more site")


def _overdue(site: str, buffer: Buffer) -> bool:
    """Whether a site has been silent for longer than ever a slow one is."""
    stats = buffer.stats.get(site)
    return stats is None or not buffer.entries or stats.is_overdue(now=buffer.entries[-1].at)


def _coefficients(known: Mapping[str, Slot], slots: Mapping[str, Slot]) -> tuple[float, float]:
    """Return normaliser and memory of a commit of `slots`, at least one, when `known` is what is remembered."""
    before = math.fsum(slot.weight for slot in known.values())
    change = math.fsum(
        weight
        for site, slot in slots.items()
        for weight in (slot.weight, -known[site].weight if site in known else 0.0)
    )
    sites = len(known.keys() | slots.keys())
    normaliser = len(slots) * (before + change) / sites
    return normaliser, (1.0 - change / normaliser) / before if before else 0.0


def _rescaled(slot: Slot, remembered: Slot | None) -> tuple[Term, ...]:
    """What the terms of a slot change by when one more update comes into it. What it replaces is left out of it."""
    replaced = {term.update_id for term in remembered.terms} if remembered else set()
    share = slot.count / (slot.count + 1)
    return tuple(
        Term(update_id=term.update_id, factor=term.factor * share - term.factor)
        for term in slot.terms
        if term.update_id not in replaced
    )
