"""What submitters ask beside a job spec: each request read once where it comes in, made once where it goes out.

    key on fedbus.jobs   body, a JSON object                               request
    abort.<job>          {} or {"reason": "..."}                           Abort
    abort.<job>          {"forget": true}                                  Forget
    query                {} or {"what": "jobs"}                            JobsQuery
    query                {"what": "sites"}                                 SitesQuery
    query                {"what": "ended"}                                 EndedQuery
    query                {"what": "audit"}                                 AuditQuery
    query                {"what": "job", "job": "..."}                     JobQuery
    query                {"what": "params", "job": "...", "version": V}    ParamsQuery; V: "last", "best" or a number
    query                {"what": "history", "job": "...", "after": N}     HistoryQuery; without N: from the first one
    query                {"what": "part", "of": "...", "offset": n}        PartQuery

Keys that are not known are ignored, so that any AMQP client may ask, also one of a later release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedbus.core.protocol.limits import MOST_NAME, MOST_SEAL_KEY, MOST_SEAL_KEYS, plain
from fedbus.errors import JobSpecError, Problem

BEFORE_ALL = -1
_LARGEST_VERSION = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """A running job is to end. `reason`: in the submitter's words, may be empty."""

    job: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """A job that is over is to be deleted."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsQuery:
    """All jobs, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesQuery:
    """All sites, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedQuery:
    """The jobs that can be forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """The newest heads of the sites' audit logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """One job with all that is known of it."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamsQuery:
    """Params that are to be fetched: of a version by its number, of the `last` or the `best` one.

    seal_keys: what they are sealed to, base64 by the suite's number; none without a kit.
    """

    job: str
    version: str | int = "last"
    seal_keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """The versions of a job that come after version `after`."""

    job: str
    after: int = BEFORE_ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class PartQuery:
    """The bytes from `offset` on of params that are being fetched; `of` names the fetch."""

    of: str
    offset: int


QueryOfJob = JobQuery | ParamsQuery | HistoryQuery
Query = JobsQuery | SitesQuery | EndedQuery | AuditQuery | QueryOfJob | PartQuery
Request = Abort | Forget | Query


def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request."""
    match request:
        case Abort(reason=reason):
            return {"reason": reason} if reason else {}
        case Forget():
            return {"forget": True}
    keys = {"what": NAMES[type(request)]} | asdict(request)
    return {key: value for key, value in keys.items() if (key, value) not in (("after", BEFORE_ALL), ("seal_keys", {}))}


def abort_of(job: str, body: Mapping[str, Any]) -> Abort | Forget:
    """What is asked under the key `abort.<job>`."""
    if body.get("forget") is True:
        return Forget(job=job)
    reason = body.get("reason")
    return Abort(job=job, reason=plain(str(reason)) if reason else "")


def query_of(body: Mapping[str, Any]) -> Query:
    """What is asked under the key `query`. Raises JobSpecError with the key that is wrong."""
    what = body.get("what", "jobs")
    read = _READERS.get(what) if isinstance(what, str) else None
    if read is None:
        raise _wrong(plain(str(what), MOST_NAME), f"no query {_shown(what)}")
    return read(body)


def _history(body: Mapping[str, Any]) -> HistoryQuery:
    after = body.get("after", BEFORE_ALL)
    if type(after) is not int or not BEFORE_ALL <= after < _LARGEST_VERSION:
        raise _wrong("after", "expected the number of a version")
    return HistoryQuery(job=_text(body, "job"), after=after)


def _params(body: Mapping[str, Any]) -> ParamsQuery:
    version = body.get("version", "last")
    if type(version) not in (int, str):
        raise _wrong("version", "expected a version: best, last or the number of one")
    keys = body.get("seal_keys", {})
    if not isinstance(keys, dict) or len(keys) > MOST_SEAL_KEYS:
        raise _wrong("seal_keys", f"expected at most {MOST_SEAL_KEYS} keys by suite, got {_shown(keys)}")
    if not all(isinstance(key, str) and len(key) <= MOST_SEAL_KEY for key in keys.values()):
        raise _wrong("seal_keys", f"expected texts of at most {MOST_SEAL_KEY} characters")
    return ParamsQuery(job=_text(body, "job"), version=version, seal_keys=keys)


def _part(body: Mapping[str, Any]) -> PartQuery:
    offset = body.get("offset")
    if type(offset) is not int:
        raise _wrong("offset", f"expected the number of a byte, got {_shown(offset)}")
    return PartQuery(of=_text(body, "of"), offset=offset)


NAMES: Mapping[type, str] = {
    JobsQuery: "jobs",
    SitesQuery: "sites",
    EndedQuery: "ended",
    AuditQuery: "audit",
    JobQuery: "job",
    ParamsQuery: "params",
    HistoryQuery: "history",
    PartQuery: "part",
}
_READERS: Mapping[str, Callable[[Mapping[str, Any]], Query]] = {
    "jobs": lambda body: JobsQuery(),
    "sites": lambda body: SitesQuery(),
    "ended": lambda body: EndedQuery(),
    "audit": lambda body: AuditQuery(),
    "job": lambda body: JobQuery(job=_text(body, "job")),
    "params": _params,
    "history": _history,
    "part": _part,
}


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise _wrong(key, f"expected a text, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return plain(repr(value), MOST_NAME)


def _wrong(path: str, message: str) -> JobSpecError:
    return JobSpecError([Problem(path=path, message=message)])
