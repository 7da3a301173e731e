"""What carries tensors: updates up on exchange fedbus.updates, versions down on fedbus.models.

A transfer is its chunks plus one manifest, sent last: the manifest commits it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages.base import UNSAID, check_sha256
from fedbus.core.protocol.messages.of_aggregator import Receipt

AUDIT_HEAD = re.compile(r"([1-9][0-9]{0,17}:[0-9a-f]{64})?")
DELTA, SNAPSHOT = "delta", "snapshot"
"""The parts of a version in the model log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One frame of an update (`part` 'update') or of a version ('delta' or 'snapshot').

    `transfer` is the update id or the version as text; `body` is one frame of `core.protocol.frames`.
    """

    job: str
    transfer: str
    part: str
    index: int
    count: int
    body: bytes


class UpdateKind(StrEnum):
    """What an update holds: a delta, a job's first params, or a site's whole local model at the end of a job."""

    DELTA = "delta"
    INITIAL = "initial"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateManifest:
    """Commits one update. `layout` is set for a job's first params.

    audit: the head of the site's audit log, sequence:sha256, whose newest line then is that of this update; "": a
    release before, which had none.
    """

    job: str
    update_id: str
    kind: UpdateKind
    base_version: int
    effort: Effort
    layout_digest: str
    frames: int
    body_bytes: int
    layout: Mapping[str, Any] | None = None
    audit: str = field(default="", metadata=UNSAID)

    def __post_init__(self) -> None:
        if not AUDIT_HEAD.fullmatch(self.audit):
            raise ValueError(f"audit must be SEQUENCE:64 hex digits or empty, got {len(self.audit)} characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Frames and bytes of one part of a version.

    sha256: over its frames as they are before sealing, in order, in hex digits; "" where nobody has a kit.
    """

    frames: int
    body_bytes: int
    sha256: str = field(default="", metadata=UNSAID)

    def __post_init__(self) -> None:
        check_sha256("sha256", self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionManifest:
    """Commits one version in the model log; published alone, after its chunks were confirmed.

    `delta` leads from version - 1 to version, `snapshot` stands alone; at least one is there. `digest` is that of the
    hidden params. `layout` is set whenever `snapshot` is. `snapshot_version` and `snapshot_back` say where a late
    joiner finds the newest snapshot: its first chunk was published so many records before this manifest; 0: not said.
    `snapshot_at` (seconds since the epoch, of the aggregator's clock) is what sites of earlier releases go by.
    `chain` names this version and all before it, see `chain`; "" where nobody has a kit.
    """

    job: str
    version: int
    digest: str
    delta: Part | None
    snapshot: Part | None
    snapshot_version: int
    snapshot_at: float
    snapshot_back: int = 0
    receipts: tuple[Receipt, ...] = ()
    layout: Mapping[str, Any] | None = None
    chain: str = field(default="", metadata=UNSAID)

    def __post_init__(self) -> None:
        check_sha256("chain", self.chain)
