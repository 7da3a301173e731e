"""Heads of the sites' audit logs, kept at the aggregator: a site that cuts or rewrites its log is held to them.

Of one site and job the heads come in order, because a manifest is sent after that of the update before; of several jobs
they may not. So only the newest head of the same job tells that a log is not the one that it was.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from fedbus.core.protocol.messages import UpdateId, UpdateManifest
from fedbus.store.audit_line import Head

NEWEST = "SELECT site, of_job, sequence, sha256, at FROM audit_heads ORDER BY site, at DESC"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHead:
    """The newest head that a site has sent with an update of a job; `at` in seconds since the epoch."""

    site: str
    job: str
    head: Head
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """A head that cannot come after the one that is known."""

    site: str
    known: Head
    came: Head


def keep(db: sqlite3.Connection, manifest: UpdateManifest, *, at: float) -> Differing | None:
    """Keep the head that came with a manifest, inside a transaction; what it says of the one before, if it differs."""
    if not manifest.audit:
        return None
    head, site = Head.parse(manifest.audit), UpdateId.parse(manifest.update_id).site
    row = db.execute(
        "SELECT sequence, sha256 FROM audit_heads WHERE site = ? AND of_job = ?", (site, manifest.job)
    ).fetchone()
    db.execute(
        "INSERT OR REPLACE INTO audit_heads (site, of_job, sequence, sha256, at) VALUES (?,?,?,?,?)",
        (site, manifest.job, head.sequence, head.sha256, at),
    )
    known = None if row is None else Head(sequence=int(row[0]), sha256=str(row[1]))
    if known is None or head.sequence > known.sequence or head == known:
        return None
    return Differing(site=site, known=known, came=head)


def kept(rows: list[tuple[str, str, int, str, float]]) -> list[KeptHead]:
    """Read what NEWEST found."""
    return [
        KeptHead(site=site, job=job, head=Head(sequence=sequence, sha256=sha256), at=at)
        for site, job, sequence, sha256, at in rows
    ]
