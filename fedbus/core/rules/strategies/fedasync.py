"""FedAsync: every update makes a version."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAsync:
    """FedAsync (Xie et al. 2019, arXiv 1903.03934) in its delta form: x += mixing f(s) delta, a version per update.

    The paper mixes whole models, x = (1 - alpha) x + alpha y. That also pulls x back towards the old version that y
    began from, by alpha (x - base): after s versions one slow site undoes the work of all others. The delta form adds
    only what the site has learnt; for s = 0 the two are the same. num_examples has no say: `mixing` is the step.
    """

    mixing: float
    staleness_weight: Callable[[int], float]
    wait_for_new_version: bool = False

    def size(self, active: int) -> int:
        return 1

    def share(self, evidence: Evidence) -> Share:
        return Share(weight=self.mixing * self.staleness_weight(evidence.staleness))

    def plan(self, buffer: Buffer) -> Plan:
        return Plan(normaliser=1.0)

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        return 1.0, 0.0

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        return len(buffer.entries), 1

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        return "every update makes a version"

    def due_at(self, buffer: Buffer) -> float | None:
        return None

    def waiting_for(self, buffer: Buffer) -> str:
        return "waiting for the next update"
