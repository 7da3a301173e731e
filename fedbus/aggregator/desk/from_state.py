"""One job as an aggregator's state folder alone has it: what the aggregator would answer, were it asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from fedbus.aggregator.desk import curve, views
from fedbus.core.job.membership import Membership
from fedbus.core.protocol import answers as a
from fedbus.core.rules.facts import Folded, Refused
from fedbus.errors import StoreError
from fedbus.store.ledger import Ledger
from fedbus.store.provenance import Provenance


def job_of(ledger: Ledger, job: str) -> a.JobDetail:
    """The job with its result; of one that has not ended as much as was recorded. Raises StoreError for no such job."""
    row = ledger.job(job)
    if row is None:
        known = ", ".join(found.job for found in ledger.jobs()[-5:])
        raise StoreError(f"no job {job!r} in this ledger; newest jobs: {known or 'none'}")
    detail = views.job_detail(row, None, Membership(), views.from_the_ledger(ledger, Provenance(ledger), row))
    return detail if row.result else _under_way(ledger, detail)


def history_of(ledger: Ledger, job: str) -> list[a.VersionLine]:
    """One line a version, from version 0 on."""
    row, lines, more = ledger.job(job), list[a.VersionLine](), True
    while row is not None and more:
        found = curve.answer(ledger, row, lines[-1].version if lines else -1)
        lines += found.history
        more = found.more and bool(found.history)
    return lines


def params_of(detail: a.JobDetail, state: Path) -> tuple[int, Path] | None:
    """The best version of a job that has ended, or its last, with its file in the state folder; None: there is none.

    The folder may have been moved since: a path that is not there any more is looked for in it.
    """
    result = detail.result or {}
    for found in (result.get("best") or {}, result):
        version, exported = found.get("version"), Path(str(found.get("exported") or ""))
        inside = (state / Path(*exported.parts[n:]) for n in range(1, len(exported.parts)))
        there = next((path for path in (exported, *inside) if path.is_file()), None)
        if version is not None and there is not None:
            return int(version), there
    return None


def _under_way(ledger: Ledger, detail: a.JobDetail) -> a.JobDetail:
    """What its facts say; which of its updates count in the end, only the result says."""
    facts = [recorded.fact for recorded in ledger.facts(detail.job)]
    folded = Counter(fact.update_id.site for fact in facts if isinstance(fact, Folded))
    refused = Counter(fact.update_id.site for fact in facts if isinstance(fact, Refused))
    examples = {fact.update_id.site: fact.num_examples for fact in facts if isinstance(fact, Folded)}
    sites = {
        site: a.SiteInJob(updates=folded[site], refused=refused[site], num_examples=examples.get(site))
        for site in sorted(ledger.participants(detail.job) | folded.keys() | refused.keys())
    }
    says = "not over when its aggregator wrote last; its state folder was read, nobody was asked"
    version = ledger.last_committed(detail.job) if facts else None
    return replace(detail, sites=sites, says=says, updates=folded.total(), version=version)
