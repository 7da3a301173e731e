"""Versions from several sites at least, around another strategy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share, Strategy
from fedbus.core.spec.training import TrainingSpec
from fedbus.core.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributors:
    """The job's promise to its sites: no version is made of fewer than `least` distinct sites.

    Nobody who reads two versions learns what a single site has sent between them. Also by time, and at the end of the
    job, nothing is committed before. `inner` decides all else, and is asked as before once they are there.
    """

    inner: Strategy
    least: int

    @property
    def wait_for_new_version(self) -> bool:
        return self.inner.wait_for_new_version

    def size(self, active: int) -> int:
        return max(self.least, self.inner.size(active))

    def share(self, evidence: Evidence) -> Share:
        return self.inner.share(evidence)

    def plan(self, buffer: Buffer) -> Plan:
        return self.inner.plan(buffer)

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        return self.inner.coefficients(buffer, forgotten=forgotten)

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        have = len(buffer.sites)
        return self.inner.fill(buffer) if have >= self.least else (have, self.least)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        return self.inner.due(buffer, now=now) if len(buffer.sites) >= self.least else None

    def due_at(self, buffer: Buffer) -> float | None:
        return self.inner.due_at(buffer) if len(buffer.sites) >= self.least else None

    def waiting_for(self, buffer: Buffer) -> str:
        have = len(buffer.sites)
        if have >= self.least:
            return self.inner.waiting_for(buffer)
        return (
            f"waiting for {counted(self.least - have, 'more site')} ({have} of the {self.least} in the buffer that "
            "every version needs)"
        )


def least_contributors(spec: TrainingSpec) -> int:
    """Return how many distinct sites a buffer needs, so that `min_contributors` of them are in what is made of it.

    A robust rule leaves some out: multi-Krum f sites, the trimmed mean 2 f of each coordinate.
    """
    robust, wanted = spec.robust, spec.min_contributors
    if robust is None or wanted == 1:
        return wanted
    return wanted + (robust.f if robust.kind == "multi_krum" else 2 * robust.f)
