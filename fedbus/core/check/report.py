"""All that the statistics of a job's sites show, the worst first.

fault     the site would teach the model wrong things, or cannot take part: `check: required` leaves it out
warning   the site stands apart from the others in a way that is rarely meant
notice    worth knowing; other patients and other scanners do that
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fedbus.core.check.doubles import of_doubles
from fedbus.core.check.images import of_images
from fedbus.core.check.labels import of_labels
from fedbus.core.check.tables import of_tables
from fedbus.core.protocol.statistics import LEAST, Finding, Statistics

SEVERITIES = ("fault", "warning", "notice")
FAULT = SEVERITIES[0]


def findings(sites: Mapping[str, Statistics], *, minimum: int = LEAST) -> tuple[Finding, ...]:
    """What is found when these sites are compared; of a single site, what stands by itself."""
    ordered = dict(sorted(sites.items()))
    found = [*of_labels(ordered), *of_tables(ordered), *of_images(ordered), *of_doubles(ordered, minimum=minimum)]
    return ranked(found)


def ranked(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first."""
    return tuple(sorted(found, key=lambda one: (SEVERITIES.index(one.severity), one.sites, one.kind)))


def faults(found: Collection[Finding]) -> dict[str, str]:
    """Sites that are at fault, and why."""
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.severity == FAULT and len(one.sites) == 1:
            reasons.setdefault(one.sites[0], []).append(f"{one.text} ({one.figure})" if one.figure else one.text)
    return {site: "; ".join(texts) for site, texts in reasons.items()}


def refusals(found: Collection[Finding], refused: Collection[str]) -> list[Finding]:
    """Findings that a site refuses to train on. refused: kinds, or a severity, that stands for the worse too."""
    worst = [SEVERITIES.index(word) for word in refused if word in SEVERITIES]
    limit = max(worst, default=-1)
    return [one for one in found if one.kind in refused or SEVERITIES.index(one.severity) <= limit]
