"""What a hospital's policy says against a job, and what of a message it lets leave: pure functions.

What lives here: the rules. What may not: the file (`spec.site_policy` has its form), clocks, counters.

    job       every reason against it, so that whoever submitted it can mend all at once
    update    whether it may leave: its examples, its steps, whether it is a whole local model
    answer    what is left of it: metrics by name, intervals, statistics, prints
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from fedbus.core.protocol import messages as m
from fedbus.core.spec.check import CheckSpec
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.sections import LocalSpec
from fedbus.core.spec.site_policy import ANY, DAYS, Between, HospitalPolicy, OutRules, Range, TaskRules, Window
from fedbus.core.spec.training import TrainingSpec

V = TypeVar("V")
MOST_SHOWN = 60
MOST_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Who submitted a job. fingerprint: of the key that signed it; empty: it is not signed."""

    submitter: str
    fingerprint: str = ""


# -------------------------------------------------------------- jobs


def reasons_against(
    policy: HospitalPolicy, spec: JobSpec, submission: Submission, *, data_tags: Collection[str]
) -> Iterator[str]:
    """Every reason why this site takes no part; texts are made of the job's and the policy's own words."""
    jobs = policy.jobs
    yield from _against_submitter(policy, submission)
    kind = str(spec.to_dict().get("kind"))
    if kind not in jobs.kinds:
        yield f"this site's policy allows no jobs of kind {kind}; allowed: {_listed(jobs.kinds)}"
    task = policy.tasks.get(spec.task)
    if task is not None:
        yield from _against_task(task, spec, data_tags)
    match spec:
        case TrainingSpec():
            yield from _against_training(policy, spec)
        case EvaluateSpec() if not policy.out.metrics:
            yield "this site's policy lets no metric leave"
        case CheckSpec() if not policy.out.statistics:
            yield "this site's policy lets no statistics of its data leave"


def _against_submitter(policy: HospitalPolicy, submission: Submission) -> Iterator[str]:
    if isinstance(policy.jobs.submitters, str):
        return  # "any"
    of_name = [one for one in policy.jobs.submitters if one.name == submission.submitter]
    if not of_name:
        yield f"this site's policy allows no jobs of submitter {submission.submitter!r:.50}"
    elif not any(one.fingerprint in (ANY, submission.fingerprint or None) for one in of_name):
        signed = f"signed with key {submission.fingerprint}" if submission.fingerprint else "not signed"
        yield f"the job is {signed}; this site's policy asks for another key of submitter {submission.submitter}"


def _against_task(rules: TaskRules, spec: JobSpec, data_tags: Collection[str]) -> Iterator[str]:
    if rules.data != ANY:
        if not data_tags:
            yield f"this site's policy allows task {spec.task} certain data only, and the site's data have no tag"
        elif not set(data_tags) <= set(rules.data):
            yield f"this site's policy does not allow task {spec.task} the data that the site has now"
    if not isinstance(rules.params, str):  # "any"
        yield from _against_params(spec.task, rules.params, dict(set_params(spec)))


def _against_params(task: str, allowed: Mapping[str, Range], given: Mapping[str, Any]) -> Iterator[str]:
    if unlisted := [f"{name:.80}" for name in given if name not in allowed]:
        more = f" and {len(unlisted) - MOST_NAMED} more" if len(unlisted) > MOST_NAMED else ""
        yield (
            f"this site's policy lets no job set {', '.join(unlisted[:MOST_NAMED])}{more}: the site would list "
            f"{'it' if len(unlisted) == 1 else 'them'} under [tasks.{task}] of policy.toml"
        )
    for name, value in given.items():
        if name in allowed and not _within(value, allowed[name]):
            yield f"{name:.80} is {_shown(value)}, this site's policy allows {_range(allowed[name])}"


def set_params(spec: JobSpec) -> Iterator[tuple[str, Any]]:
    """What a job sets of its task and its local trainings, by dotted name: all that is not at its default."""
    data = spec.to_dict()
    yield from _leaves("task_config", data["task_config"])
    defaults = {name: field.default for name, field in LocalSpec.model_fields.items()}
    for name, value in data.get("local", {}).items():
        if value != defaults[name]:
            yield f"local.{name}", value


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Of mappings their entries; specs are at most `MAX_DEPTH` deep."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(f"{name}.{key}", item)


def _within(value: Any, allowed: Range) -> bool:
    """Of a list every item must be within; NaN is within nothing."""
    if allowed == ANY:
        return True
    if isinstance(value, list | tuple):
        return all(_within(item, allowed) for item in value)
    if isinstance(allowed, Between):
        return _is_number(value) and allowed.min <= value <= allowed.max
    return any(_same(value, one) for one in allowed)


def _same(value: Any, one: Any) -> bool:
    return value == one and (type(value) is type(one) or (_is_number(value) and _is_number(one)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _against_training(policy: HospitalPolicy, spec: TrainingSpec) -> Iterator[str]:
    if filters := policy.privacy.filters:
        yield f"this site's policy asks for {_listed(filters)} on every update, which no job of this release promises"
    most = policy.jobs.max_steps_per_update
    limited = most != ANY or policy.jobs.max_steps_per_day != ANY
    if limited and spec.local.steps is None:
        yield "this site's policy limits local steps: give the budget as local.steps, not as epochs or seconds"
    for limit, words in ((most, "one update"), (policy.jobs.max_steps_per_day, "one day")):
        if isinstance(limit, int) and spec.local.steps is not None and spec.local.steps > limit:
            yield f"local.steps is {spec.local.steps}, this site's policy allows {limit} in {words}"
    if spec.check is not None and not policy.out.statistics:
        yield "the job checks data first, and this site's policy lets no statistics of its data leave"


# -------------------------------------------------------------- what leaves


def against_update(policy: HospitalPolicy, manifest: m.UpdateManifest) -> str | None:
    """Why an update may not leave; None when it may. A job's first params are made without any data."""
    match manifest.kind:
        case m.UpdateKind.INITIAL:
            return None
        case m.UpdateKind.LOCAL:
            return None if policy.out.local_models else "this site's policy lets no local model leave"
        case m.UpdateKind.DELTA:
            return _against_delta(policy, manifest)


def _against_delta(policy: HospitalPolicy, manifest: m.UpdateManifest) -> str | None:
    effort, most = manifest.effort, policy.jobs.max_steps_per_update
    if effort.num_examples < policy.jobs.min_examples:
        return f"this site's policy lets no update of fewer than {policy.jobs.min_examples} examples leave"
    if isinstance(most, int) and not 1 <= effort.steps <= most:
        return f"this site's policy lets no update of more than {most} local steps leave"
    return None


def without_metrics(out: OutRules, manifest: m.UpdateManifest) -> m.UpdateManifest:
    """The manifest with the metrics that may leave."""
    metrics = _allowed(out, manifest.effort.metrics)
    return (
        manifest
        if metrics == manifest.effort.metrics
        else replace(manifest, effort=replace(manifest.effort, metrics=metrics))
    )


def score_left(out: OutRules, answer: m.ScoreAnswer) -> m.ScoreAnswer:
    """What may leave of a score; where that is no metric at all, the site says so instead of a score."""
    metrics = _allowed(out, answer.metrics)
    if answer.metrics and not metrics:
        said = "this site's policy lets none of these metrics leave"
        return m.ScoreAnswer(
            site=answer.site, job=answer.job, version=answer.version, metrics={}, num_examples=0, failed=said
        )
    return replace(
        answer,
        metrics=metrics,
        not_finite=tuple(name for name in answer.not_finite if _may(out, name)),
        spreads=_allowed(out, answer.spreads) if out.intervals else {},
        differences=_allowed(out, answer.differences) if out.intervals else {},
        losses=answer.losses if out.statistics else {},
        local=answer.local if out.local_models else "",
    )


def statistics_left(out: OutRules, answer: m.StatisticsAnswer) -> m.StatisticsAnswer:
    """What may leave of statistics."""
    if answer.statistics is None:
        return answer
    if not out.statistics:
        return replace(answer, statistics=None, failed="this site's policy lets no statistics of its data leave")
    return answer if out.prints else replace(answer, statistics=replace(answer.statistics, prints=()))


def _allowed(out: OutRules, values: Mapping[str, V]) -> dict[str, V]:
    return {name: value for name, value in values.items() if _may(out, name)}


def _may(out: OutRules, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in out.metrics)


# -------------------------------------------------------------- hours


def is_open(windows: Iterable[Window], at: datetime) -> bool:
    """Whether one of the windows holds this time of the policy's zone."""
    minute, day = at.hour * 60 + at.minute, at.weekday()
    return any(_holds(window, day, minute) for window in windows)


def _holds(window: Window, day: int, minute: int) -> bool:
    if not window.over_midnight:
        return day in window.days and window.start <= minute < window.end
    began_today, began_yesterday = day in window.days, (day - 1) % 7 in window.days
    return (began_today and minute >= window.start) or (began_yesterday and minute < window.end)


def opens_at(windows: Iterable[Window], at: datetime) -> str:
    """When the next window begins, such as 'mon 19:00'; empty when none ever does."""
    minute, day = at.hour * 60 + at.minute, at.weekday()
    coming = [
        (ahead, window.start)
        for window in windows
        for ahead in range(8)
        if (day + ahead) % 7 in window.days and (ahead or window.start > minute)
    ]
    if not coming:
        return ""
    ahead, start = min(coming)
    return f"{DAYS[(day + ahead) % 7]} {start // 60:02}:{start % 60:02}"


# -------------------------------------------------------------- words


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _range(allowed: Range) -> str:
    return f"{allowed.min} to {allowed.max}" if isinstance(allowed, Between) else _shown(list(allowed))


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"
