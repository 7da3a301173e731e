"""The curve of a job: what came of each version, as the ledger knows it, in answers of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedbus.core.protocol import wire
from fedbus.core.protocol.answers import History, VersionLine
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.spec.kinds import TRAINING
from fedbus.store.ledger import Ledger
from fedbus.store.rows import JobRow, ScoreRow

MOST_VERSIONS = 500
MOST_BYTES = 1 << 20

Scores = Mapping[int, Sequence[ScoreRow]]


def answer(ledger: Ledger, row: JobRow, after: int) -> History:
    """The lines of versions after `after`, as many as fit, and whether there are more; a job may make no versions."""
    if row.spec.get("kind", TRAINING) != TRAINING:
        return History(history=(), more=False)
    commits = ledger.commits(row.job, after=after, most=MOST_VERSIONS)
    first: list[tuple[int, float, Sequence[UpdateId]]] = []
    if row.started_at is not None and after < 0:
        first = [(0, row.started_at, ())]
    made = [*first, *((found.version, at, found.update_ids) for found, at in commits)]
    scores = _scores(ledger, row.job, [version for version, _, _ in made])
    fitting = _fitting(_line(row, version, at, ids, scores.get(version, ())) for version, at, ids in made)
    return History(history=fitting, more=len(fitting) < len(made) or len(commits) == MOST_VERSIONS)


def _scores(ledger: Ledger, job: str, versions: Sequence[int]) -> Scores:
    """By version, in the order in which they came."""
    found: dict[int, list[ScoreRow]] = {}
    if versions:
        for score in ledger.findings.scores(job, after=versions[0] - 1, until=versions[-1]):
            found.setdefault(score.score.version, []).append(score)
    return found


def _line(
    row: JobRow, version: int, at: float, update_ids: Sequence[UpdateId], scores: Sequence[ScoreRow]
) -> VersionLine:
    return VersionLine(
        version=version,
        at=round(at, 3),
        seconds=None if row.started_at is None else round(at - row.started_at, 3),
        updates=len(update_ids),
        contributors=tuple(sorted({update.site for update in update_ids})),
        means=dict(scores[-1].means) if scores else {},
        scores={score.site: dict(score.score.metrics) for score in scores},
    )


def _fitting(lines: Iterable[VersionLine]) -> tuple[VersionLine, ...]:
    """As many of the first lines as one message takes, at least one."""
    size = 0
    fitting: list[VersionLine] = []
    for line in lines:
        size += len(wire.to_json(line))
        if fitting and size > MOST_BYTES:
            break
        fitting.append(line)
    return tuple(fitting)
