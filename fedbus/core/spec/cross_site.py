"""The job in which every site scores the best and the last version of a training, and the local models left there.

A training with `evaluate_local` is followed by it, `fedbus cross-site` makes one at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fedbus.core.protocol.messages import job_id
from fedbus.core.spec.evaluate import MOST_MODELS, EvaluateSpec

NAME = "cross-site"
MOST_LOCAL = MOST_MODELS - 2


def cross_site_spec(
    job: str,
    training: Mapping[str, Any],
    *,
    best: int | None,
    last: int | None,
    local: Sequence[str],
    sites: Collection[str],
) -> EvaluateSpec:
    """Return the spec. training: the spec of `job`. local: whose models are there; sites: who scores, empty: all.

    best, last: numbers of versions; best None: no score has named one. Of more local models than MOST_LOCAL the first
    are taken.
    """
    versions: list[str] = ["best", "last"] if best is not None and best != last else ["last"]
    models = [{"job": job, "version": version} for version in versions] + [
        {"job": job, "site": s} for s in local[:MOST_LOCAL]
    ]
    return EvaluateSpec.parse(
        {
            "kind": "evaluate",
            "name": NAME,
            "task": training["task"],
            "task_config": dict(training.get("task_config", {})),
            "seed": training.get("seed", 0),
            "sites": sorted(sites) or None,
            "models": models,
        }
    )


def follow_up_id(job: str, submitted_at: float) -> str:
    """The id of the job that follows `job` by itself: always the same, so that there is never a second one.

    submitted_at: of `job`, in seconds since the epoch; another job may come to have its id when it was forgotten.
    """
    return job_id(NAME, hashlib.sha256(f"{job} {submitted_at!r}".encode()).hexdigest()[:8])
