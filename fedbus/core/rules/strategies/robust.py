"""A robust rule over the buffer of another strategy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from fedbus.core.rules.facts import Combination
from fedbus.core.rules.robust import candidates
from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share, Strategy
from fedbus.core.spec.sections import RobustKind, least_sites
from fedbus.core.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Robust:
    """Multi-Krum, trimmed mean or median (see `rules.robust`) of what `inner` buffers, up to `f` of whose sites lie.

    The buffer holds one delta of each of at least 2 f + 3 sites before it is committed, whatever `inner` says: with
    fewer nobody could tell who lies. When the job ends before, its last version is made without any of them.
    `inner` gives the weights, which multi-Krum uses for the mean of those it keeps.
    """

    inner: Strategy
    kind: RobustKind
    f: int

    @property
    def wait_for_new_version(self) -> bool:
        return self.inner.wait_for_new_version

    @property
    def least(self) -> int:
        """So many distinct sites must be in the buffer."""
        return least_sites(self.f)

    def size(self, active: int) -> int:
        return max(self.least, self.inner.size(active))

    def share(self, evidence: Evidence) -> Share:
        return self.inner.share(evidence)

    def plan(self, buffer: Buffer) -> Plan:
        """For multi-Krum all of them: whom to keep is decided from their inner products, by `robust.believed`."""
        if len(buffer.sites) < self.least:
            combination = Combination(rule="mean", terms=(), excluded=tuple(sorted(buffer.sites)))
        else:
            combination = Combination(
                rule="mean" if self.kind == "multi_krum" else self.kind, terms=candidates(buffer.entries), trim=self.f
            )
        return replace(self.inner.plan(buffer), normaliser=1.0, combination=combination)

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        return 1.0, 0.0

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        have = len(buffer.sites)
        return self.inner.fill(buffer) if have >= self.least else (have, self.least)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        return self.inner.due(buffer, now=now) if len(buffer.sites) >= self.least else None

    def due_at(self, buffer: Buffer) -> float | None:
        return self.inner.due_at(buffer) if len(buffer.sites) >= self.least else None

    def waiting_for(self, buffer: Buffer) -> str:
        have, active = len(buffer.sites), len(buffer.active)
        if have >= self.least:
            return self.inner.waiting_for(buffer)
        text = (
            f"waiting for {counted(self.least - have, 'more site')} ({have} of the {self.least} in the buffer that "
            f"{self.kind} with f = {self.f} needs)"
        )
        return (
            f"{text}; only {counted(active, 'site')} of at least {self.least} are there"
            if active < self.least
            else text
        )
