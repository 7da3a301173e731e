"""What the aggregator answers to submitters, as frozen dataclasses, and as the JSON that any AMQP client gets.

    answer                                            JSON
    Accepted Aborted Forgotten Rejected               {"accepted": {its fields}}, and so on
    JobDetail ParamsOffer                             {"job": {its fields}}, {"params": {its fields}}
    Jobs Sites Ended AuditHeads History               its fields

A key that a later release adds is ignored; one that an earlier release lacks has its default here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from fedbus.core.protocol.spread import Spread, Spreads
from fedbus.core.protocol.statistics import ClassLoss, Finding, Statistics
from fedbus.errors import DecodeError, Problem

A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A job was taken. `notes`: sentences on what it will wait for, such as a site that nobody enrolled."""

    job: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """A job is being ended."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """A job was deleted; its files had so many bytes."""

    job: str
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """What was asked cannot be done, for these reasons."""

    errors: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamsOffer:
    """Params that can be fetched part by part under the name `of`.

    key: what the parts are sealed with, sealed to who asks, see `fedbus.trust.sealed_params`; "" without a kit.
    """

    of: str
    version: int
    size_bytes: int
    part_bytes: int
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """One job of a list. Times are seconds since the epoch; None: not yet, or not known.

    says: why it waits, what it does, or why it has ended. rule: where the job's strategy chose one, with the reason.
    """

    job: str
    name: str | None = None
    task: str | None = None
    state: str = ""
    version: int | None = None
    updates: int | None = None
    says: str = ""
    rule: str | None = None
    submitted_by: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What went wrong in a job, or right again; `kind` is that of the event which said so."""

    at: float = 0.0
    kind: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How many updates were refused for one reason."""

    reason: str = ""
    updates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenScore:
    """The newest score of a site: which of its metrics are not finite."""

    version: int
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteInJob:
    """What a site gave to a job and, while the job has not ended (else `state` is None), what it does for it now.

    data_wait: share of its training in which a step waited for its examples, 0 to 1.
    new_labels: so many came from its data source since the task was trained there last; None: it tells no number.
    num_examples: that it trained on last, as many as it is believed. influence: its part of what the last versions
    apply, 0 to 1; share: what it would be by the job's weighting of examples alone, see `rules.influence`. cosine: of
    its deltas and the versions that they became part of. None: not known.
    """

    updates: int = 0
    refused: int = 0
    mean_staleness: float = 0.0
    data_wait: float = 0.0
    num_examples: int | None = None
    influence: float | None = None
    share: float | None = None
    cosine: float | None = None
    state: str | None = None
    activity: str | None = None
    version: int | None = None
    new_labels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """How far an upload is; `count` is 0 when nobody said it yet, `age_s` the time since the last arrival."""

    site: str
    update_id: str = ""
    chunks: int = 0
    count: int = 0
    body_bytes: int = 0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and its 95 % interval, from so many test cases; low and high None: nothing is known of it.

    cases: 0 where a site tells none, for they are too few. sites: over so many; 1: of a single one.
    """

    value: float = 0.0
    low: float | None = None
    high: float | None = None
    cases: int = 0
    sites: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteScore:
    """What a site measured of a model. not_finite: metrics that came out as NaN or infinity.

    intervals: of its metrics. differences: this model's metrics less those of the one that it is compared to.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    num_examples: int = 0
    not_finite: tuple[str, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredModel:
    """A model of a job that evaluates: what each site measured, or why it could not; means over the sites.

    intervals, differences: over the sites that say them, which may be fewer than those of the means. Of very many,
    those of single sites are left out: see `sites_intervals_left_out`.
    """

    model: str = ""
    means: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, SiteScore] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def sites_intervals_left_out(self) -> bool:
        """Whether what is over the sites has intervals and no single site has: there were too many to tell."""
        of_sites = (one for score in self.scores.values() for one in (score.intervals, score.differences))
        return bool(self.intervals or self.differences) and not any(of_sites)

    def interval_of_mean(self, metric: str) -> Interval | None:
        """The interval over the sites, where all that measured the metric say one: that is the interval of its mean."""
        found = self.intervals.get(metric)
        sites = sum(metric in score.metrics for score in self.scores.values())
        return found if found is not None and found.sites == sites else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """A chain of hashes over a job's spec and all that was decided in it, so many facts: see `store.provenance`."""

    sha256: str = ""
    facts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a data check has found, the worst first; by site the statistics behind it, or why there are none.

    losses: by site, of its labelled examples by class under the job's last model, where the job trains.
    """

    findings: tuple[Finding, ...] = ()
    sites: Mapping[str, Statistics] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, Mapping[str, ClassLoss]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferFill:
    """Updates, or sites that sent one, that are part of no version yet, and how many make one now."""

    have: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail(JobLine):
    """One job with all that is known of it. `result` is kept once it has ended; what is None then, only a running has.

    means: of the sites' newest scores, by metric. declined: reasons by site. models: of a job that evaluates.
    check: of one that checks data, or that trains after a check.
    provenance: None from an aggregator of an earlier release. buffer: of a training that runs. params_bytes: of the
    params that sites send, as float32; None: not known.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    incidents: tuple[Incident, ...] = ()
    refusals: tuple[Refusals, ...] = ()
    sites: Mapping[str, SiteInJob] = field(default_factory=dict)
    means: Mapping[str, float] | None = None
    not_finite: Mapping[str, BrokenScore] | None = None
    declined: Mapping[str, str] | None = None
    receiving: tuple[Receiving, ...] | None = None
    models: tuple[ScoredModel, ...] | None = None
    provenance: Provenance | None = None
    check: CheckReport | None = None
    buffer: BufferFill | None = None
    params_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What a site says that it does for one job: a phrase, and in `detail` what else there is to say of it.

    new_labels: as in `SiteInJob`. left_s: seconds that the training still takes, as it goes now; None: not known.
    memory_used_bytes, memory_bytes: of the GPU that it trains on, 0 without one.
    """

    activity: str = ""
    version: int = -1
    step: int = 0
    steps: int = 0
    detail: str = ""
    device: str = ""
    new_labels: int | None = None
    left_s: float | None = None
    memory_used_bytes: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLine:
    """One site of a list; `since_s`, `heard_s`: seconds ago. `clock_ahead_s`: of our clock, None: not known."""

    site: str
    state: str = ""
    since_s: float = 0.0
    heard_s: float = 0.0
    reason: str = ""
    clock_ahead_s: float | None = None
    device: str = ""
    fedbus_version: str = ""
    tasks: tuple[str, ...] = ()
    jobs: Mapping[str, Doing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """What an ended job takes on the aggregator's disk, in bytes; `ended_at` in seconds since the epoch."""

    job: str
    state: str
    ended_at: float
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """Where the audit log of a site was when it sent its newest update of a job: sequence:sha256, see `store.audit`."""

    site: str
    job: str
    head: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLine:
    """What came of one version of a job: a point of its curve.

    at: seconds since the epoch. seconds: since training began. contributors: the sites whose updates made the version.
    scores: the metrics of each site that scored it. means: of all sites' newest scores when this version was scored
    last, which is what stop rules look at; for the last version, of its own scores. Metrics that are not finite are
    left out; most versions are scored by few sites.
    """

    version: int
    at: float = 0.0
    seconds: float | None = None
    updates: int = 0
    contributors: tuple[str, ...] = ()
    means: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """All jobs, oldest first."""

    jobs: tuple[JobLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """All sites that have joined since the aggregator started."""

    sites: tuple[SiteLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The jobs that can be forgotten, the one that ended first, first."""

    ended: tuple[EndedJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came from a site for a job: so many whole updates, of so many bytes, the newest at `at`, since the epoch."""

    site: str
    job: str
    updates: int = 0
    update_bytes: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHeads:
    """The newest heads of the sites' audit logs by site and job; of each site the newest first.

    sent: what came from the sites by site and job, of jobs that are not forgotten; none from an earlier release.
    """

    heads: tuple[AuditHead, ...]
    sent: tuple[Sent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Versions in order, as many as one message takes, and whether there are more."""

    history: tuple[VersionLine, ...]
    more: bool = False


Answer = (
    Accepted | Aborted | Forgotten | Rejected | JobDetail | ParamsOffer | Jobs | Sites | Ended | AuditHeads | History
)

WRAPPED: Mapping[type, str] = {
    Accepted: "accepted",
    Aborted: "aborted",
    Forgotten: "forgotten",
    Rejected: "rejected",
    JobDetail: "job",
    ParamsOffer: "params",
}


def rejected(path: str, message: str) -> Rejected:
    """What cannot be done for one reason."""
    return Rejected(errors=(Problem(path=path, message=message),))


def intervals_of(spreads: Spreads) -> dict[str, Interval]:
    """What one site says of how sure it is, as people are told it."""
    return {name: _interval_of(spread) for name, spread in sorted(spreads.items())}


def _interval_of(spread: Spread) -> Interval:
    low, high = spread.interval or (None, None)
    return Interval(value=spread.value, low=low, high=high, cases=spread.cases)


def to_json(answer: Answer) -> dict[str, Any]:
    """An answer as it stands on the wire."""
    plain: dict[str, Any] = as_json(answer)
    name = WRAPPED.get(type(answer))
    return plain if name is None else {name: plain}


def as_json(part: Any) -> Any:
    """An answer, or a part of one, as JSON-able data: what `-o json` prints."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        left_out = _left_out(part)
        names = (f.name for f in dataclasses.fields(part))
        return {name: as_json(getattr(part, name)) for name in names if name not in left_out}
    if isinstance(part, Mapping):
        return {key: as_json(value) for key, value in part.items()}
    return [as_json(value) for value in part] if isinstance(part, list | tuple) else part


def from_json(kind: type[A], data: Mapping[str, Any]) -> A:
    """Read an answer of this kind, or a part of one. Raises DecodeError when it is none, also of a later release."""
    name, known = WRAPPED.get(kind), cast("Any", kind)
    try:
        found: A = _adapter(known).validate_python(data if name is None else data.get(name))
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in exc.errors()[:5])
        raise DecodeError(f"an answer of another release, {kind.__name__} was expected: {problems}") from exc
    return found


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


_OF_DETAIL = (
    "means",
    "not_finite",
    "declined",
    "receiving",
    "models",
    "provenance",
    "check",
    "buffer",
    "params_bytes",
)


def _left_out(part: Any) -> Collection[str]:
    """Names of fields that are not said."""
    match part:
        case Accepted(notes=()):
            return ("notes",)
        case ParamsOffer(key=""):
            return ("key",)
        case SiteInJob():
            always = ("num_examples", "influence", "share", "cosine", "new_labels")
            unknown = [name for name in always if getattr(part, name) is None]
            return [*unknown, *(("state", "activity", "version") if part.state is None else ())]
        case Doing():
            memory = [] if part.memory_bytes else ["memory_used_bytes", "memory_bytes"]
            return [*memory, *(name for name in ("new_labels", "left_s") if getattr(part, name) is None)]
        case JobDetail():
            return [name for name in _OF_DETAIL if getattr(part, name) is None]
    return ()
