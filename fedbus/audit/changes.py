"""Lines of what differs from what the log says last: certificate, policy, versions of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbus.audit.writer import Audit
from fedbus.store.audit import newest
from fedbus.store.audit_kinds import Kind


def note_changes(audit: Audit, folder: Path, now: Mapping[Kind, Mapping[str, Any]]) -> None:
    """Add a line for each of these kinds whose facts are not those of the log's newest line of it."""
    for kind, facts in now.items():
        line = newest(folder, kind)
        before = {} if line is None else {key: value for key, value in line.facts.items() if key != "before"}
        if before != facts:
            audit.note(kind, **facts, before=before)
