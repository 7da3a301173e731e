"""What somebody should look at in a job, as findings of what the aggregator knows: no judgement of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedbus.console.outcome import check_of
from fedbus.core.protocol.answers import JobDetail
from fedbus.core.protocol.messages import JobState
from fedbus.core.words import counted
from fedbus.report.page import Finding, Severity


def attention(detail: JobDetail) -> list[Finding]:
    """The findings of a job of any kind; one that says so when there is none."""
    found = [*_of_the_end(detail), *_of_scores(detail), *_of_sites(detail), *_of_the_check(detail)]
    return found or [Finding(severity=Severity.GOOD, text="nothing that the aggregator knows of")]


def _of_the_end(detail: JobDetail) -> Iterator[Finding]:
    reason = str((detail.result or {}).get("reason") or detail.says)
    match detail.state:
        case JobState.FAILED:
            yield Finding(severity=Severity.PROBLEM, text="the job has failed", detail=reason)
        case JobState.ABORTED:
            yield Finding(severity=Severity.WARNING, text="the job was aborted", detail=reason)
        case JobState.FINISHED:
            pass
        case _:
            text = f"the job has not ended, it is {detail.state}: numbers may still change"
            yield Finding(severity=Severity.NOTE, text=text, detail=detail.says)


def _of_the_check(detail: JobDetail) -> Iterator[Finding]:
    report = check_of(detail)
    words = [one.severity for one in report.findings] if report is not None else []
    for word, severity in (("fault", Severity.PROBLEM), ("warning", Severity.WARNING)):
        if number := words.count(word):
            yield Finding(severity=severity, text=f"the data check found {counted(number, word)}, listed below")


def _of_scores(detail: JobDetail) -> Iterator[Finding]:
    scores: Mapping[str, Any] = (detail.result or {}).get("scores", {})
    for site, score in scores.items():
        if score.get("failed"):
            text = f"{site} could not score the last version"
            yield Finding(severity=Severity.WARNING, text=text, detail=str(score["failed"]))
        if names := score.get("not_finite"):
            text = f"at {site} {', '.join(map(str, names))} of the last version came out as NaN or infinity"
            yield Finding(severity=Severity.PROBLEM, text=text)
    for site, broken in (detail.not_finite or {}).items():
        text = f"at {site} {', '.join(broken.metrics)} of version {broken.version} came out as NaN or infinity"
        yield Finding(severity=Severity.PROBLEM, text=text)


def _of_sites(detail: JobDetail) -> Iterator[Finding]:
    for site, reason in (detail.declined or {}).items():
        yield Finding(severity=Severity.WARNING, text=f"{site} declined", detail=reason)
    idle = [site for site, numbers in detail.sites.items() if not numbers.updates]
    if idle and any(numbers.updates for numbers in detail.sites.values()):
        yield Finding(severity=Severity.WARNING, text=f"no update of {', '.join(idle)} is in the model")
    for refusal in detail.refusals:
        text = f"{counted(refusal.updates, 'update')} refused"
        yield Finding(severity=Severity.WARNING, text=text, detail=refusal.reason)
    if detail.incidents:
        text = f"{counted(len(detail.incidents), 'incident')}, listed below"
        yield Finding(severity=Severity.NOTE, text=text, detail=detail.incidents[-1].text)
