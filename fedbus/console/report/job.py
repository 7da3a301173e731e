"""The report of one job of any kind, made of what the aggregator answers: nothing that a site has not already said.

A kind adds its own sections in a module of its own and a line in SECTIONS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fedbus.console.outcome import models_of
from fedbus.console.report.attention import attention
from fedbus.console.report.check import check_sections
from fedbus.console.report.evaluate import evaluate_sections, matrix_blocks
from fedbus.console.report.training import training_sections
from fedbus.core.job.status_text import span
from fedbus.core.protocol.answers import JobDetail, VersionLine, as_json
from fedbus.core.protocol.messages import JobState
from fedbus.report import page as p

TRAINING = "training"
SECTIONS: Mapping[str, Callable[[JobDetail, Sequence[VersionLine]], Iterator[p.Section]]] = MappingProxyType(
    {TRAINING: training_sections, "evaluate": evaluate_sections, "data-check": check_sections}
)
"""What is measured in a job of each kind; a kind that is not here has the general sections only."""


def job_page(
    detail: JobDetail, history: Sequence[VersionLine], *, now: float, follow_up: JobDetail | None = None
) -> p.Page:
    """The report of a job. history: its versions, empty for a kind that makes none. now: seconds since the epoch.

    follow_up: the job that was made when this one ended, see `comparing.follow_up_of`.
    """
    kind = kind_of(detail)
    own = SECTIONS.get(kind)
    return p.Page(
        title=f"{detail.name or detail.job}: {_KINDS.get(kind, kind)}",
        lead=_lead(detail, now),
        made_at=now,
        data={"job": as_json(detail), "history": as_json(tuple(history)), "kind": kind}
        | ({} if follow_up is None else {"follow_up": as_json(follow_up)}),
        sections=[
            p.Section(title="What needs attention", blocks=[p.Findings(findings=attention(detail))]),
            *(own(detail, history) if own else ()),
            *_scored_across(follow_up),
            *(check_sections(detail, history) if kind == TRAINING else ()),
            *_happened(detail),
            p.Section(title="The job", blocks=[_facts(detail, now), *_spec(detail.spec)]),
        ],
    )


_KINDS = MappingProxyType(
    {TRAINING: "report of a training", "evaluate": "report of an evaluation", "data-check": "report of a data check"}
)


def kind_of(detail: JobDetail) -> str:
    """The kind of a job, as its spec says it."""
    return str(detail.spec.get("kind", TRAINING))


def _lead(detail: JobDetail, now: float) -> str:
    sites = f"{len(detail.sites)} site{'s' * (len(detail.sites) != 1)}"
    took = _duration(detail, now)
    lasting = f"after {took}" if detail.ended_at else f"for {took}" if took else ""
    made = f"{detail.updates} updates, {detail.version} versions" if detail.version and detail.updates else ""
    return ", ".join(filter(None, (f"{detail.state} {lasting}".strip(), sites, made))) + "."


def _duration(detail: JobDetail, now: float) -> str:
    if detail.started_at is None:
        return ""
    return span((detail.ended_at or now) - detail.started_at)


def _facts(detail: JobDetail, now: float) -> p.Facts:
    result: Mapping[str, Any] = detail.result or {}
    return p.Facts(
        rows=[
            ("job", detail.job),
            ("kind", kind_of(detail)),
            ("task", detail.task),
            ("state", detail.state),
            ("says", detail.says),
            ("reason", "" if result.get("reason") == detail.says else _text(result.get("reason"))),
            ("rule", detail.rule),
            ("submitted by", detail.submitted_by),
            ("submitted", p.when(detail.submitted_at)),
            ("began", p.when(detail.started_at)),
            ("ended", p.when(detail.ended_at)),
            ("took", _duration(detail, now)),
            ("versions", detail.version),
            ("updates", detail.updates),
            ("last version in", _text(result.get("exported"))),
        ]
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _scored_across(follow_up: JobDetail | None) -> Iterator[p.Section]:
    """What every site measured of the best, the last and the local models, or where that will stand."""
    if follow_up is None:
        return
    models = models_of(follow_up)
    text = f"The best and the last version and the sites' local models, scored by every site in job {follow_up.job}."
    if follow_up.state != JobState.FINISHED:
        text += f" That job is {follow_up.state}: {follow_up.says}"
    blocks = matrix_blocks(models) if models else ()
    yield p.Section(title="Each model at every site", blocks=[p.Text(text=text), *blocks])


def _happened(detail: JobDetail) -> Iterator[p.Section]:
    """What went wrong, and right again, with its time."""
    if detail.incidents:
        rows = [(p.when(incident.at), incident.text) for incident in detail.incidents]
        table = p.Table(columns=["when", "what went wrong, and right again"], rows=rows)
        yield p.Section(title="What happened", blocks=[table])


def _spec(spec: Mapping[str, Any]) -> Iterator[p.Block]:
    if spec:
        title = "The job's description, with every default filled in"
        yield p.Code(title=title, text=json.dumps(spec, indent=1, sort_keys=True, ensure_ascii=False))
