"""How sure a site is of a score is kept with it, and a ledger that knows nothing of that goes on and stays readable."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fedbus.core.job.scores import Score
from fedbus.core.protocol.spread import LEVELS, Spread
from fedbus.store.ledger import Ledger
from fedbus.store.state_reader import LedgerReader

SPREAD = Spread(value=0.5, cases=9, draws=2000, quantiles=tuple(level / 10 for level in LEVELS))
SCORE = Score(version=3, metrics={"auc": 0.5}, num_examples=9, spreads={"auc": SPREAD}, differences={"auc": SPREAD})
OLD = Score(version=2, metrics={"auc": 0.25}, num_examples=9)


def an_old_ledger(path: Path) -> None:
    """As a release before has left it: scores without a column for spreads."""
    with Ledger(path) as ledger:
        ledger.findings.add_score("heart", "mercy", OLD, means={"auc": 0.25}, at=1.0)
    db = sqlite3.connect(path)
    db.executescript("ALTER TABLE scores DROP COLUMN spreads;")
    db.close()


def test_spreads_and_differences_are_as_they_were(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        ledger.findings.add_score("heart", "mercy", SCORE, means={}, at=1.0)
        (row,) = ledger.findings.scores("heart", after=-1, until=9)
    assert row.score == SCORE


def test_a_ledger_without_them_is_read_as_it_is(tmp_path: Path) -> None:
    an_old_ledger(tmp_path / "ledger.sqlite3")
    before = (tmp_path / "ledger.sqlite3").read_bytes()
    with LedgerReader(tmp_path / "ledger.sqlite3") as ledger:
        (row,) = ledger.findings.newest_scores("heart")
    assert row.score == OLD
    assert (tmp_path / "ledger.sqlite3").read_bytes() == before


def test_a_ledger_without_them_goes_on(tmp_path: Path) -> None:
    an_old_ledger(tmp_path / "ledger.sqlite3")
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        ledger.findings.add_score("heart", "mercy", SCORE, means={}, at=2.0)
        found = [row.score for row in ledger.findings.scores("heart", after=-1, until=9)]
    assert found == [OLD, SCORE]
