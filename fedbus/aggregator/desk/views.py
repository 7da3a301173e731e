"""What the aggregator answers to queries about jobs, one job and sites."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fedbus.aggregator.job.runner import JobRunner
from fedbus.core.job.membership import Membership, SiteState, SiteView
from fedbus.core.job.pace import left_s
from fedbus.core.job.status_text import in_words, waiting_sentence
from fedbus.core.protocol import answers as a
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import JobActivity, JobState
from fedbus.store.ledger import Ledger
from fedbus.store.provenance import Provenance
from fedbus.store.rows import JobRow

NEWEST_INCIDENTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class FromTheLedger:
    """The newest incidents of a job, why its updates were refused, and the hash of its history."""

    incidents: tuple[a.Incident, ...] = ()
    refusals: tuple[a.Refusals, ...] = ()
    provenance: a.Provenance | None = None


def job_line(row: JobRow, runner: JobRunner | None, membership: Membership) -> a.JobLine:
    """One job in a list."""
    return a.JobLine(**_line(row, runner, membership))


def _line(row: JobRow, runner: JobRunner | None, membership: Membership) -> dict[str, Any]:
    """The fields that the list and the detail of a job share."""
    result = row.result or {}
    return {
        "job": row.job,
        "name": row.spec.get("name"),
        "task": row.spec.get("task"),
        "state": str(_state(runner)) if runner else row.state,
        "version": runner.version if runner else result.get("version"),
        "updates": runner.work.updates if runner else result.get("updates"),
        "says": says(runner, membership) if runner else row.reason,
        "rule": runner.work.rule if runner else result.get("rule"),
        "submitted_by": row.submitted_by,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
    }


def from_the_ledger(ledger: Ledger, provenance: Provenance, row: JobRow) -> FromTheLedger:
    """What went wrong in a job and what came of it, and the hash of all that was decided."""
    incidents = ledger.incidents(row.job, newest=NEWEST_INCIDENTS)
    chain = provenance.of(row)
    return FromTheLedger(
        incidents=tuple(a.Incident(at=at, kind=kind, text=text) for at, kind, text in incidents),
        refusals=tuple(a.Refusals(reason=reason, updates=times) for reason, times in ledger.refusals(row.job)),
        provenance=a.Provenance(sha256=chain.sha256, facts=chain.facts),
    )


def job_detail(row: JobRow, runner: JobRunner | None, membership: Membership, of_ledger: FromTheLedger) -> a.JobDetail:
    """One job with its spec, sites, result and what the ledger has beside."""
    known: dict[str, Any] = {"spec": dict(row.spec), "result": row.result}
    known |= {name: getattr(of_ledger, name) for name in ("incidents", "refusals", "provenance")}
    known |= _line(row, runner, membership)
    known["params_bytes"] = None if row.layout is None else 4 * Layout.from_dict(row.layout).numel
    if runner is None:
        of_sites: dict[str, Any] = (row.result or {}).get("sites", {})
        return a.JobDetail(sites={site: a.from_json(a.SiteInJob, of_sites[site]) for site in of_sites}, **known)
    numbers = runner.work.site_numbers()
    return a.JobDetail(
        sites={site: _site_in_job(site, runner, membership, numbers[site]) for site in numbers},
        declined=dict(runner.life.declined_sites),
        receiving=tuple(runner.receiving()),
        **runner.work.details(),
        **known,
    )


def says(runner: JobRunner, membership: Membership) -> str:
    """Why the job waits or what it does, in one sentence."""
    now = time.monotonic()
    if runner.paused:
        return f"paused, nothing is lost: {runner.paused}"
    if resuming := _resuming(runner):
        return resuming
    match runner.life.state:
        case JobState.WAITING:
            what = runner.nobody_left or runner.waits_to_start_for()
        case JobState.RUNNING:
            what = runner.nobody_left or runner.work.waiting_for() + _given_up(runner)
        case JobState.FINISHING:
            what = runner.work.waiting_for()
        case _:
            return runner.life.reason
    away = _not_back(runner)
    not_back = f"not back since the aggregator started: {', '.join(away)}" if away else ""
    what = "; ".join(filter(None, (runner.waits_in_vain, what, runner.work.remarks(), not_back)))
    views = [v for v in membership.views() if v.name in runner.life.accepted_sites or _stays_away(v, runner)]
    return waiting_sentence(what, views, job=runner.job, now=now)


def _stays_away(site: SiteView, runner: JobRunner) -> bool:
    """Whether a job that has too few sites could use this one, which has left."""
    life = runner.life
    lacks = life.state is JobState.WAITING or runner.waits_for_sites
    asked = life.head.sites is None or site.name in life.head.sites
    return lacks and asked and site.state is SiteState.LEFT and site.name not in life.declined_sites


def _state(runner: JobRunner) -> JobState:
    """The job's state; while it is taken up after a restart, the one it was in."""
    life = runner.life.state
    if not runner.opened and runner.row.started_at is not None:
        return JobState(runner.row.state)
    return JobState.FINISHING if runner.over is not None and life is JobState.RUNNING else life


def _resuming(runner: JobRunner) -> str:
    """After a restart, where a job that had begun is taken up and whom it waits for; empty once a site is back."""
    if runner.row.started_at is None or runner.life.state.ended or runner.active():
        return ""
    if not runner.opened:
        at = "" if runner.version is None else f" at version {runner.version}"
        return f"resuming{at}: bringing its model back from disk"
    away = _not_back(runner)
    at = "" if runner.version is None else f" at version {runner.version}"
    return f"resuming{at}: waiting for {in_words(away)} to come back" if away else ""


def _not_back(runner: JobRunner) -> list[str]:
    """Sites that took part before the aggregator was started and have not come back since."""
    return sorted(runner.life.participants - runner.life.accepted_sites - runner.life.declined_sites.keys())


def _given_up(runner: JobRunner) -> str:
    """Who declined and why, once nobody is left to wait for."""
    if runner.active():
        return ""
    return "".join(f"; {site} takes no part: {why}" for site, why in sorted(runner.life.declined_sites.items()))


def site_line(view: SiteView) -> a.SiteLine:
    """One site in a list."""
    now = time.monotonic()
    return a.SiteLine(
        site=view.name,
        state=str(view.state),
        since_s=round(now - view.since, 1),
        heard_s=round(now - view.last_heard_at, 1),
        reason=view.reason,
        clock_ahead_s=None if view.skew.ahead_s is None else round(view.skew.ahead_s, 1),
        device=view.device,
        fedbus_version=view.fedbus_version,
        tasks=view.tasks,
        jobs={job: _doing(activity, view, now=now) for job, activity in view.activities.items()},
    )


def _doing(activity: JobActivity, view: SiteView, *, now: float) -> a.Doing:
    left = left_s(activity, view.paces.get(activity.job), now=now)
    return a.Doing(
        activity=activity.phrase,
        version=activity.version,
        step=activity.step,
        steps=activity.steps,
        detail=activity.note,
        device=activity.device,
        new_labels=_told(activity),
        left_s=None if left is None else round(left, 1),
        memory_used_bytes=activity.memory_used_bytes,
        memory_bytes=activity.memory_bytes,
    )


def _told(activity: JobActivity | None) -> int | None:
    """How many new labels the site tells; None when it does not."""
    return None if activity is None or activity.new_labels < 0 else activity.new_labels


def _site_in_job(site: str, runner: JobRunner, membership: Membership, numbers: dict[str, Any]) -> a.SiteInJob:
    view = membership.get(site)
    activity = view.activities.get(runner.job) if view else None
    return a.SiteInJob(
        state=str(view.state) if view else "unknown",
        activity=activity.phrase if activity else "",
        version=activity.version if activity else None,
        new_labels=_told(activity),
        **numbers,
    )


def audit_heads(ledger: Ledger) -> a.AuditHeads:
    """The heads of the sites' audit logs as they are answered, and what came from the sites."""
    kept = ledger.trust.audit_heads()
    heads = (a.AuditHead(site=one.site, job=one.job, head=str(one.head), at=one.at) for one in kept)
    sent = (
        a.Sent(site=site, job=job, updates=updates, update_bytes=size, at=at)
        for site, job, updates, size, at in ledger.what_came()
    )
    return a.AuditHeads(heads=tuple(heads), sent=tuple(sent))
