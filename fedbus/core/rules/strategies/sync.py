"""FedAvg, with k of n sites and a deadline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share, examples_weight
from fedbus.core.rules.strategies.buffered import sum_of_weights
from fedbus.core.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """FedAvg (McMahan et al. 2017, arXiv 1602.05629) with k-of-n and a deadline.

    Commits when k distinct sites have contributed (never more than are active; k None: when every active site has), or
    `deadline_s` after the version began with at least one update; with none, at the first one after the deadline.
    A late update is folded into the version that is under way, weighted by its staleness: never thrown away.
    A site trains once per version.
    """

    power: float
    staleness_weight: Callable[[int], float]
    k: int | None = None
    deadline_s: float = 60.0
    wait_for_new_version: bool = True

    def size(self, active: int) -> int:
        return max(1, active if self.k is None else min(self.k, active))

    def share(self, evidence: Evidence) -> Share:
        own = examples_weight(evidence.num_examples, power=self.power)
        return Share(weight=own * self.staleness_weight(evidence.staleness))

    def plan(self, buffer: Buffer) -> Plan:
        return Plan(normaliser=self.coefficients(buffer)[0])

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        return sum_of_weights(buffer.entries), 0.0

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        return len(buffer.sites), len(buffer.sites) + self._missing(buffer)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        there, missing = buffer.sites, self._missing(buffer)
        if not missing:
            return f"{counted(len(there), 'site')} contributed"
        if now >= buffer.began_at + self.deadline_s:
            return f"the deadline of {self.deadline_s:g} s passed with {counted(len(there), 'site')}"
        return None

    def due_at(self, buffer: Buffer) -> float | None:
        return buffer.began_at + self.deadline_s if buffer.entries else None

    def waiting_for(self, buffer: Buffer) -> str:
        return f"waiting for {counted(self._missing(buffer), 'more site')} ({len(buffer.sites)} contributed)"

    def _missing(self, buffer: Buffer) -> int:
        have, to_come = len(buffer.sites), len(buffer.awaited)
        return to_come if self.k is None else max(0, min(self.k, max(1, have + to_come)) - have)
