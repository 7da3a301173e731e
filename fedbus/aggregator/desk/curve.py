"""The curve of a job: what came of each version, as the ledger knows it, in answers of a bounded size.

    {"version", "at", "seconds", "updates", "contributors", "means", "scores"}

at: seconds since the epoch. seconds: since training began. contributors: the sites whose updates made the version.
scores: the metrics of each site that scored it. means: of all sites' newest scores when this version was scored last,
which is what stop rules look at; for the last version, of its own scores. Metrics that are not finite are left out;
most versions are scored by few sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedbus.core.protocol import wire
from fedbus.core.protocol.messages import UpdateId
from fedbus.store.ledger import JobRow, Ledger

MOST_VERSIONS = 500
MOST_BYTES = 1 << 20


def answer(ledger: Ledger, row: JobRow, after: int) -> dict[str, Any]:
    """The lines of versions after `after`, as many as fit, and whether there are more."""
    commits = ledger.commits(row.job, after=after, most=MOST_VERSIONS)
    lines = [] if row.started_at is None or after >= 0 else [_line(row, 0, row.started_at, ())]
    lines += [_line(row, found.version, at, found.update_ids) for found, at in commits]
    if lines:
        _add_scores(ledger, row.job, lines)
    fitting = _fitting(lines)
    return {"history": fitting, "more": len(fitting) < len(lines) or len(commits) == MOST_VERSIONS}


def _line(row: JobRow, version: int, at: float, update_ids: Sequence[UpdateId]) -> dict[str, Any]:
    sites = sorted({update.site for update in update_ids})
    seconds = None if row.started_at is None else round(at - row.started_at, 3)
    line = {"version": version, "at": round(at, 3), "seconds": seconds, "updates": len(update_ids)}
    return line | {"contributors": sites, "means": {}, "scores": {}}


def _add_scores(ledger: Ledger, job: str, lines: list[dict[str, Any]]) -> None:
    by_version = {line["version"]: line for line in lines}
    first, last = lines[0]["version"], lines[-1]["version"]
    for score in ledger.scores(job, after=first - 1, until=last):
        if (line := by_version.get(score.version)) is not None:
            line["scores"][score.site] = dict(score.metrics)
            line["means"] = dict(score.means)


def _fitting(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first lines as one message takes, at least one."""
    size = 0
    for count, line in enumerate(lines):
        size += len(wire.to_json(line))
        if count and size > MOST_BYTES:
            return lines[:count]
    return lines
