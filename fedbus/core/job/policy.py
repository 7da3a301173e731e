"""A site's own policy: which jobs it takes part in.

What lives here: accept or decline, each decline with its reason in plain words. What may not: where the policy is
configured (settings of the site daemon), and anything the aggregator may override: the site has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.core.words import counted
from fedbus.errors import JobSpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """The site takes part."""

    spec: JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline:
    """The site does not take part."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePolicy:
    """What a site allows.

    installed_tasks: names found by entry point. allowed_tasks: those of them that may run here; None allows all.
    min_batch_size: smallest local batch; the delta of a batch of one is close to one patient's data. min_contributors:
    so many sites must be in every version, so that nobody reads from it what this one has sent.
    """

    site: str
    installed_tasks: frozenset[str]
    allowed_tasks: frozenset[str] | None = None
    min_batch_size: int = 1
    min_contributors: int = 1

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that are installed and allowed, in order: what a site's Join says."""
        allowed = self.installed_tasks if self.allowed_tasks is None else self.installed_tasks & self.allowed_tasks
        return tuple(sorted(allowed))

    def decide(self, spec: JobSpec) -> Accept | Decline:
        """Accept the job, or decline it with the first reason that applies."""
        reason = self._reason_against(spec)
        return Decline(reason=reason) if reason else Accept(spec=spec)

    def decide_offer(self, data: Mapping[str, Any]) -> Accept | Decline:
        """Decide on a spec as it came; one that cannot be read (a newer aggregator, say) is declined."""
        try:
            return self.decide(kinds.parse(data))
        except JobSpecError as exc:
            return Decline(reason=f"this version of fedbus cannot read the job spec: {exc}")

    def _reason_against(self, spec: JobSpec) -> str | None:
        if spec.sites is not None and self.site not in spec.sites:
            return f"the job is for {', '.join(spec.sites)}, not for {self.site}"
        if spec.task not in self.installed_tasks:
            return f"task {spec.task!r} is not installed here; installed: {_listed(self.installed_tasks)}"
        if spec.task not in self.tasks:
            return f"task {spec.task!r} is not allowed here; allowed: {_listed(self.tasks)}"
        return self._against_training(spec) if isinstance(spec, TrainingSpec) else None

    def _against_training(self, spec: TrainingSpec) -> str | None:
        if spec.local.batch_size < self.min_batch_size:
            return f"batch_size {spec.local.batch_size} is below this site's minimum of {self.min_batch_size}"
        if spec.min_contributors < self.min_contributors:
            return (
                f"the job's versions may come from {counted(spec.min_contributors, 'site')}, this site takes part from "
                f"{counted(self.min_contributors, 'site')} on: set min_contributors: {self.min_contributors} in the job"
            )
        return None


def _listed(names: frozenset[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"
