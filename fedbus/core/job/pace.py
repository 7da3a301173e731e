"""How long a training still takes, from the steps that a site has told: steps left x seconds a step.

Seconds a step are those between the first and the last step told of this training; while only one is told, those of the
training before. What has passed since the last word is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from fedbus.core.protocol.messages import JobActivity


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One training of one job at a site. `at`: seconds on the clock that `told` is given; step_s: None, not known."""

    version: int
    step: int
    steps: int
    at: float
    first_step: int
    first_at: float
    step_s: float | None = None

    @classmethod
    def told(cls, doing: JobActivity, before: Self | None, *, now: float) -> Self | None:
        """What is known once a site has said what it does; steps are 0 while it does something else."""
        if doing.steps <= 0:
            return before
        step = min(max(doing.step, 0), doing.steps)
        if before is None or (before.version, before.steps) != (doing.version, doing.steps) or step < before.step:
            return cls(
                version=doing.version,
                step=step,
                steps=doing.steps,
                at=now,
                first_step=step,
                first_at=now,
                step_s=None if before is None else before.step_s,
            )
        if step == before.step:
            return before
        step_s = (now - before.first_at) / (step - before.first_step)
        return replace(before, step=step, at=now, step_s=max(step_s, 0.0))

    def left_s(self, *, now: float) -> float | None:
        """Seconds until the last step; None: not known."""
        if self.step_s is None:
            return None
        return max(0.0, (self.steps - self.step) * self.step_s - (now - self.at))


def left_s(doing: JobActivity, pace: Pace | None, *, now: float) -> float | None:
    """Seconds until the training ends that a site is in; None: it is in none, or that is not known."""
    if doing.steps <= 0 or pace is None or (pace.version, pace.steps) != (doing.version, doing.steps):
        return None
    return pace.left_s(now=now)
