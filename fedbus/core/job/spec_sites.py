"""Which of the sites that are known could take a job, before it is sent: what `fedbus check --sites` says.

A site has the last word: what its own settings ask for beyond its tasks (`min_batch_size`, `min_contributors`) it says
only when it is offered the job, see `policy`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fedbus.core.job.membership import SiteState
from fedbus.core.spec.head import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSite:
    """A site that has joined: whether it is there, and the tasks that it offers."""

    name: str
    state: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The sites that could take part now, and why each of the others cannot."""

    could: tuple[str, ...]
    cannot: Mapping[str, str]
    least: int

    @property
    def could_start(self) -> bool:
        return len(self.could) >= self.least

    @property
    def says(self) -> str:
        """Whether the job could start now, and what to do if not."""
        if self.could_start:
            return f"could start now: {len(self.could)} could take part, {self.least} needed"
        return (
            f"could not start now: {len(self.could)} could take part, {self.least} needed; "
            "start or mend the sites above, or lower min_sites and min_contributors"
        )


def prospect(spec: JobSpec, known: Iterable[KnownSite]) -> Prospect:
    """Say of each site that is known, or that the job names, whether it could take the job now."""
    by_name = {site.name: site for site in known}
    names = sorted(by_name) if spec.sites is None else [*spec.sites, *sorted(set(by_name) - set(spec.sites))]
    against = {name: _reason_against(spec, name, by_name) for name in names}
    return Prospect(
        could=tuple(name for name, reason in against.items() if reason is None),
        cannot={name: reason for name, reason in against.items() if reason is not None},
        least=spec.least_sites,
    )


def _reason_against(spec: JobSpec, name: str, known: Mapping[str, KnownSite]) -> str | None:
    site = known.get(name)
    if site is None:
        return f"is not known to the aggregator: it has not joined{_nearest(name, known)}"
    if spec.sites is not None and name not in spec.sites:
        return "is not named in sites"
    if spec.task not in site.tasks:
        offered = ", ".join(sorted(site.tasks)) or "none"
        return f"does not offer task {spec.task!r}; it offers {offered}{_nearest(spec.task, site.tasks)}"
    if site.state != SiteState.ONLINE:
        return f"has the task, but is {site.state}"
    return None


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
