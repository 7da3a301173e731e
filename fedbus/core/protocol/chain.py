"""The chain of a job's versions: one number that names a version and every one before it.

    chain(v) = SHA-256 of ["fedbus model log 1", chain before, job, version, digest, sha256 of its frames], as JSON

The frames are those of the delta, of the snapshot where there is no delta. A snapshot that is published later for a
version has other frames and the same chain. Who holds a version sees whether the next one follows it; who begins
with a snapshot takes the chain that its signed manifest says.
"""

from __future__ import annotations

import hashlib
import json

from fedbus.core.protocol.messages import Part

_DOMAIN = "fedbus model log 1"


def chain_of(before: str, *, job: str, version: int, digest: str, delta: Part | None, snapshot: Part | None) -> str:
    """The chain at a version that was published with these parts; `before` is "" where the chain begins."""
    frames = delta or snapshot
    linked = [_DOMAIN, before, job, version, digest, "" if frames is None else frames.sha256]
    return hashlib.sha256(json.dumps(linked, separators=(",", ":")).encode()).hexdigest()
