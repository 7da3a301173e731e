"""What a job waits for and may never get: a metric that no site reports, a site that nobody knows, sites that are left.

What lives here: when that is so, and how it is said. What may not: how long it is waited for (see `life` for metrics,
the aggregator for sites).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from fedbus.core.job.scores import Score
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec

ENOUGH_VERSIONS = 3
"""A metric that no site reports is waited for until every active site has scored so many versions."""
MOST_LISTED = 8


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like `name`, however it is capitalised; empty when none is like it."""
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    found = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else ""


def watched_metrics(spec: TrainingSpec) -> dict[str, str]:
    """The metric that each stop rule of a job looks at, by rule."""
    rules = {"target": spec.stop.target, "patience": spec.stop.patience}
    return {name: rule.metric for name, rule in rules.items() if rule is not None}


def rules_of(watched: Mapping[str, str], metric: str) -> str:
    """Say which of the rules wait for a metric, e.g. 'the stop rule target waits'."""
    rules = [rule for rule, name in watched.items() if name == metric]
    return f"the stop rule {rules[0]} waits" if len(rules) == 1 else f"the stop rules {' and '.join(rules)} wait"


class Reported:
    """Which metrics the sites of a job report; those that came out as NaN or infinity count."""

    def __init__(self, watched: Mapping[str, str]) -> None:
        self._missing = dict(watched)
        self._names: dict[str, frozenset[str]] = {}
        self._newest: dict[str, int] = {}
        self._versions: dict[str, int] = {}

    def add(self, site: str, score: Score) -> None:
        """A site has scored a version."""
        self._names[site] = frozenset((*score.metrics, *score.not_finite))
        if score.version > self._newest.get(site, -1):
            self._newest[site] = score.version
            self._versions[site] = self._versions.get(site, 0) + 1
        self._missing = {rule: name for rule, name in self._missing.items() if name not in self._names[site]}

    @property
    def missing(self) -> Mapping[str, str]:
        """By stop rule, its metric, where sites have scored and none has ever reported that one."""
        return dict(self._missing) if self._names else {}

    def says(self) -> str:
        """Say which stop rules wait for what no site reports; empty when none does."""
        if not self.missing:
            return ""
        names = sorted(frozenset().union(*self._names.values()))
        told = f"sites report {_listed(names)}" if names else "sites report none"
        return "; ".join(
            f"{rules_of(self.missing, metric)} for metric {metric!r}, {told}{_but_nearest(metric, names)}"
            for metric in dict.fromkeys(self.missing.values())
        )

    def enough(self, sites: Collection[str]) -> bool:
        """Whether every one of `sites`, at least one, has scored ENOUGH_VERSIONS versions."""
        return bool(sites) and all(self._versions.get(site, 0) >= ENOUGH_VERSIONS for site in sites)


def unknown_site(site: str, known: Collection[str]) -> str:
    """Say that the broker has no queue for a site which a job names. known: names of other sites."""
    return f"site {site} is not enrolled at the broker{_but_nearest(site, known)}"


def left(spec: JobSpec, *, known: Collection[str], declined: Collection[str]) -> frozenset[str]:
    """The sites that may take part, or do: of those that the spec names, or else of all that are known."""
    return frozenset(spec.sites or known) - frozenset(declined)


def nobody_left(spec: JobSpec, *, known: Collection[str], declined: Mapping[str, str]) -> str:
    """Say that too few sites are left for the job to go on, and why; empty while those who declined are not lacking.

    known: every site that ever joined or took part. declined: reasons, also of those that gave up.
    """
    may, least = left(spec, known=known, declined=declined), spec.least_sites
    if not declined or len(may) >= least or len({*may, *declined}) < least:
        return ""
    what = f"only {', '.join(sorted(may))} of the {least} sites it needs" if may else "no site"
    reasons = [f"{site}: {reason}" for site, reason in sorted(declined.items())]
    return f"{what} is left to take part: {_listed(reasons, by='; ')}"


def _but_nearest(name: str, known: Collection[str]) -> str:
    found = nearest(name, known)
    return f": nearest {found!r}" if found else ""


def _listed(words: list[str], *, by: str = ", ") -> str:
    more = len(words) - MOST_LISTED
    return by.join(words[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
