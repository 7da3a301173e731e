"""What a ledger's rows are in Python: typed, frozen, and how jobs and scores are read from theirs.

Facts have `fact_rows`, manifests `manifests`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedbus.core.job.scores import Score
from fedbus.core.protocol.spread import Spread, Spreads
from fedbus.core.rules.facts import Fact

SCORES = "SELECT version, site, metrics, means, num_examples, not_finite, failed, spreads FROM scores"
JOBS = "SELECT job, spec, state, reason, layout, submitted_by, submitted_at, started_at, ended_at, result FROM jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as the ledger knows it; times are seconds since the epoch."""

    job: str
    spec: Mapping[str, Any]
    state: str
    reason: str
    layout: Mapping[str, Any] | None
    submitted_by: str
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """A job that is made when another one ends."""

    job: str
    spec: Mapping[str, Any]
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """A chunk that was appended to its update's spool file."""

    update_id: str
    job: str
    site: str
    index: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One decision, as it was recorded; `seq` orders all facts of a ledger. at: seconds since the epoch."""

    seq: int
    fact: Fact
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """What a site measured of a version, or why it could not, and the means over the sites then."""

    site: str
    score: Score
    means: Mapping[str, float]
    failed: str = ""


def job_row(row: tuple[Any, ...]) -> JobRow:
    """Read what a query that begins with JOBS found."""
    job, spec, state, reason, layout, submitted_by, submitted_at, started_at, ended_at, result = row
    return JobRow(
        job=job,
        spec=json.loads(spec),
        state=state,
        reason=reason,
        layout=json.loads(layout) if layout else None,
        submitted_by=submitted_by,
        submitted_at=submitted_at,
        started_at=started_at,
        ended_at=ended_at,
        result=json.loads(result) if result else None,
    )


def score_row(row: tuple[Any, ...]) -> ScoreRow:
    """Read what a query that begins with SCORES found."""
    version, site, metrics, means, num_examples, not_finite, failed, spreads = row
    score = Score(
        version=version,
        metrics=json.loads(metrics),
        num_examples=num_examples,
        not_finite=tuple(json.loads(not_finite)),
        **{kind: _spreads(found) for kind, found in json.loads(spreads).items()},
    )
    return ScoreRow(site=site, score=score, means=json.loads(means), failed=failed)


def spreads_text(score: Score) -> str:
    """What a row has of the spreads of a score and of its differences."""
    kinds = {"spreads": score.spreads, "differences": score.differences}
    return json.dumps({kind: {name: asdict(spread) for name, spread in of.items()} for kind, of in kinds.items() if of})


def _spreads(found: Mapping[str, Any]) -> Spreads:
    return {name: Spread(**spread | {"quantiles": tuple(spread["quantiles"])}) for name, spread in found.items()}
