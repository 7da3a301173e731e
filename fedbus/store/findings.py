"""What sites have measured and answered, job by job: scores, the trend of their means, answers that are no score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedbus.core.job.scores import Score
from fedbus.store.ledger_file import LedgerFile
from fedbus.store.rows import SCORES, ScoreRow, score_row, spreads_text


class Findings:
    """The tables scores, trend and answers of a ledger."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def add_score(
        self,
        job: str,
        site: str,
        score: Score,
        *,
        means: Mapping[str, float],
        failed: str = "",
        point: tuple[int, float | None] | None = None,
        at: float,
    ) -> None:
        """Keep what a site measured of a version, and the means over the sites with it; the newest counts.

        failed: why it could not be measured. point: what it makes of the job's trend, a version and its mean.
        """
        measured = json.dumps(dict(score.metrics)), json.dumps(dict(means)), score.num_examples
        row = (job, score.version, site, *measured, json.dumps(score.not_finite), failed, spreads_text(score), at)
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO scores"
                " (job, version, site, metrics, means, num_examples, not_finite, failed, spreads, at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                row,
            )
            if point is not None:
                db.execute("INSERT OR REPLACE INTO trend (job, version, mean) VALUES (?,?,?)", (job, *point))

    def trend(self, job: str) -> list[tuple[int, float | None]]:
        """The points of a job's trend in order of versions; without a mean: the version is of no use somewhere."""
        rows = self._file.rows("SELECT version, mean FROM trend WHERE job = ? ORDER BY version", (job,))
        return [(int(version), None if mean is None else float(mean)) for version, mean in rows]

    def scores(self, job: str, *, after: int, until: int) -> list[ScoreRow]:
        """The scores of the versions after `after` up to `until`, in the order in which they came."""
        query = f"{SCORES} WHERE job = ? AND version > ? AND version <= ? ORDER BY at"
        return [score_row(row) for row in self._file.rows(query, (job, after, until))]

    def newest_scores(self, job: str) -> list[ScoreRow]:
        """The score of the newest version that each site has measured."""
        query = f"{SCORES} WHERE job = ? AND failed = '' GROUP BY site HAVING version = MAX(version) ORDER BY site"
        return [score_row(row) for row in self._file.rows(query, (job,))]

    def add_answer(self, job: str, asked: str, site: str, body: Mapping[str, Any], *, failed: str, at: float) -> None:
        """Keep what a site said when it was asked, or why it could not; the newest counts. body: JSON-able."""
        with self._file.transaction() as db:
            row = (job, asked, site, json.dumps(body), failed, at)
            db.execute("INSERT OR REPLACE INTO answers (job, asked, site, body, failed, at) VALUES (?,?,?,?,?,?)", row)

    def answers(self, job: str) -> list[tuple[str, str, dict[str, Any], str]]:
        """Return (asked, site, body, failed) of every answer of a job."""
        rows = self._file.rows("SELECT asked, site, body, failed FROM answers WHERE job = ? ORDER BY at", (job,))
        return [(str(asked), str(site), json.loads(body), str(failed)) for asked, site, body, failed in rows]
