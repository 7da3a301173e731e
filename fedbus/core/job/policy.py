"""A site's own policy: which jobs it takes part in.

What lives here: accept or decline, each decline with its reasons in plain words. What may not: where the policy is
configured, and anything the aggregator may override: the site has the last word.

Two may set it: the settings of the site's daemon, which are a floor, and the hospital's `policy.toml`. Each is asked,
and the stricter counts: a task must be allowed by both, and of two minimums the higher one holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fedbus.core.job.hospital import Submission, reasons_against
from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.site_policy import HospitalPolicy
from fedbus.core.spec.training import TrainingSpec
from fedbus.core.words import counted
from fedbus.errors import JobSpecError

MOST_REASONS = 10


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
    so many sites must be in every version, so that nobody reads from it what this one has sent. hospital: what the
    hospital's policy says; None: there is none. data_tags: of the site's data. shut: why no job may run here; empty
    when some may.
    """

    site: str
    installed_tasks: frozenset[str]
    allowed_tasks: frozenset[str] | None = None
    min_batch_size: int = 1
    min_contributors: int = 1
    hospital: HospitalPolicy | None = None
    data_tags: tuple[str, ...] = ()
    shut: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that are installed and allowed, in order: what a site's Join says."""
        allowed = self.installed_tasks if self.allowed_tasks is None else self.installed_tasks & self.allowed_tasks
        if self.hospital is not None:
            allowed &= self.hospital.tasks.keys()
        return () if self.shut else tuple(sorted(allowed))

    def decide(self, spec: JobSpec, submission: Submission | None = None) -> Accept | Decline:
        """Accept the job, or decline it with every reason that applies."""
        reasons = list(islice(self._reasons_against(spec, submission or Submission(submitter="")), MOST_REASONS + 1))
        if len(reasons) > MOST_REASONS:
            reasons[-1] = "and more"
        return Decline(reason="; ".join(reasons)) if reasons else Accept(spec=spec)

    def decide_offer(self, data: Mapping[str, Any], submission: Submission | None = None) -> Accept | Decline:
        """Decide on a spec as it came; one that cannot be read (a newer aggregator, say) is declined."""
        try:
            return self.decide(kinds.parse(data), submission)
        except JobSpecError as exc:
            return Decline(reason=f"this version of fedbus cannot read the job spec: {exc}")

    def _reasons_against(self, spec: JobSpec, submission: Submission) -> Iterator[str]:
        if self.shut:
            yield self.shut
            return
        if spec.sites is not None and self.site not in spec.sites:
            yield f"the job is for {', '.join(spec.sites)}, not for {self.site}"
        if spec.task not in self.installed_tasks:
            yield f"task {spec.task!r} is not installed here; installed: {_listed(self.installed_tasks)}"
        elif spec.task not in self.tasks:
            yield f"task {spec.task!r} is not allowed here; allowed: {_listed(self.tasks)}"
        if isinstance(spec, TrainingSpec):
            yield from self._against_training(spec)
        if self.hospital is not None:
            yield from reasons_against(self.hospital, spec, submission, data_tags=self.data_tags)

    def _against_training(self, spec: TrainingSpec) -> Iterator[str]:
        rules = None if self.hospital is None else self.hospital.jobs
        batch = max(self.min_batch_size, 1 if rules is None else rules.min_batch_size)
        sites = max(self.min_contributors, 1 if rules is None else rules.min_contributors)
        if spec.local.batch_size < batch:
            yield f"batch_size {spec.local.batch_size} is below this site's minimum of {batch}"
        if spec.min_contributors < sites:
            yield (
                f"the job's versions may come from {counted(spec.min_contributors, 'site')}, this site takes part from "
                f"{counted(sites, 'site')} on: set min_contributors: {sites} in the job"
            )


def _listed(names: frozenset[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"
