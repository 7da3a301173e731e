"""FedNova: deltas of unequal numbers of local steps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from fedbus.core.rules.facts import Folded
from fedbus.core.rules.step_budget import counted_steps, effective_steps
from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLocalSteps:
    """FedNova (Wang et al. 2020, arXiv 2007.07481) around a rule that weighs: sites make unequal numbers of steps a_i.

        v = tau sum of w_i delta_i / a_i over the rule's normaliser,    tau = sum of w_i a_i / sum of w_i

    The rule gives w_i; an update is folded with w_i / a_i. `most`: the job's `local.steps`, which bounds a_i, see
    `step_budget`. With equal a_i it is the rule itself.
    """

    inner: Strategy
    most: int

    @property
    def wait_for_new_version(self) -> bool:
        return self.inner.wait_for_new_version

    def size(self, active: int) -> int:
        return self.inner.size(active)

    def share(self, evidence: Evidence) -> Share:
        return Share(weight=self.inner.share(evidence).weight / counted_steps(evidence.steps, self.most))

    def plan(self, buffer: Buffer) -> Plan:
        return replace(self.inner.plan(buffer), normaliser=self.coefficients(buffer)[0])

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        entries = tuple(self._whole(entry) for entry in buffer.entries)
        tau = effective_steps((entry.weight, counted_steps(entry.effort.steps, self.most)) for entry in entries)
        normaliser, memory = self.inner.coefficients(replace(buffer, entries=entries), forgotten=forgotten)
        return normaliser / tau, memory

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        return self.inner.fill(buffer)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        return self.inner.due(buffer, now=now)

    def due_at(self, buffer: Buffer) -> float | None:
        return self.inner.due_at(buffer)

    def waiting_for(self, buffer: Buffer) -> str:
        return self.inner.waiting_for(buffer)

    def _whole(self, entry: Folded) -> Folded:
        """The entry with the weight that the rule gave it."""
        return replace(entry, weight=entry.weight * counted_steps(entry.effort.steps, self.most))
