"""A ledger of an earlier release goes on under this one, and its whole history stays readable without being changed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fedbus.core.job.scores import Score
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Refused
from fedbus.store.ledger import DECIDED, RECEIVING, SPOOLED, Ledger
from fedbus.store.ledger_schema import ANYBODY, TABLES_OF_A_JOB
from fedbus.store.rows import ChunkRow
from fedbus.store.state_reader import LedgerReader

WHOLE, BEGUN, DONE = "mercy:0123abcd:1", "mercy:0123abcd:2", "ucsf:0123abcd:1"

# As release 0.1.0 made it.
MANIFEST = (
    '{"base_version":0,"body_bytes":15,"frames":2,"job":"heart","kind":"delta","layout":null,"layout_digest":"1a",'
    '"metrics":{"loss":0.5},"num_examples":7,"response":0.0,"steps":3,"train_s":1.5,"travel":2.0,'
    '"update_id":"mercy:0123abcd:1"}'
)
SCHEMA_1 = """
CREATE TABLE jobs (
  job TEXT PRIMARY KEY, spec TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', layout TEXT,
  message_id TEXT UNIQUE, submitted_by TEXT NOT NULL, submitted_at REAL NOT NULL, started_at REAL, ended_at REAL,
  result TEXT);
CREATE TABLE updates (
  update_id TEXT PRIMARY KEY, job TEXT NOT NULL, site TEXT NOT NULL, manifest TEXT, state TEXT NOT NULL,
  received_at REAL NOT NULL, receipt TEXT);
CREATE INDEX updates_by_job ON updates (job, state);
CREATE TABLE chunks (
  update_id TEXT NOT NULL, idx INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
  PRIMARY KEY (update_id, idx)) WITHOUT ROWID;
CREATE TABLE facts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX facts_by_job ON facts (job, seq);
CREATE TABLE versions (
  job TEXT NOT NULL, version INTEGER NOT NULL, published_at REAL NOT NULL, PRIMARY KEY (job, version)) WITHOUT ROWID;
CREATE TABLE incidents (job TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX incidents_by_job ON incidents (job);
INSERT INTO jobs (job, spec, state, message_id, submitted_by, submitted_at)
  VALUES ('heart', '{"name": "heart"}', 'running', 'm1', 'ana', 1.0);
INSERT INTO updates VALUES
  ('ucsf:0123abcd:1', 'heart', 'ucsf', 'manifest 1', 'decided', 1.0, '{"outcome": "folded"}'),
  ('mercy:0123abcd:1', 'heart', 'mercy', '{MANIFEST}', 'spooled', 2.0, NULL),
  ('mercy:0123abcd:2', 'heart', 'mercy', NULL, 'receiving', 3.0, NULL);
INSERT INTO chunks VALUES ('mercy:0123abcd:1', 0, 0, 10), ('mercy:0123abcd:1', 1, 10, 5), ('mercy:0123abcd:2', 0, 0, 7);
INSERT INTO facts (job, kind, body, at) VALUES
  ('heart', 'refused', '{"update_id": "ucsf:0123abcd:1", "reason": "stale"}', 1.0);
INSERT INTO versions VALUES ('heart', 0, 1.0);
INSERT INTO incidents VALUES ('heart', 1.0, 'site-lost', 'mercy is lost');
PRAGMA user_version=1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger that an aggregator of release 0.1.0 has left."""
    path = tmp_path / "ledger.sqlite3"
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_1.replace("{MANIFEST}", MANIFEST))
    db.close()
    return path


def history_of(ledger: Ledger) -> dict[str, object]:
    return {
        "states": ledger.update_states("heart"),
        "waiting": [manifest.effort for manifest in ledger.manifests("heart", SPOOLED)],
        "chunks": {update: ledger.chunks("heart", update) for update in (WHOLE, BEGUN, DONE)},
        "receipt": ledger.receipt("heart", DONE),
        "facts": [(row.seq, row.fact) for row in ledger.facts("heart")],
        "published": ledger.published("heart"),
        "incidents": ledger.incidents("heart", newest=9),
    }


FACT = Refused(update_id=UpdateId.parse(DONE), reason="stale")
HISTORY = {
    "states": {DONE: DECIDED, WHOLE: SPOOLED, BEGUN: RECEIVING},
    "waiting": [Effort(num_examples=7, steps=3, seconds=1.5, travel=2.0, metrics={"loss": 0.5})],
    "chunks": {WHOLE: [(0, 0, 10), (1, 10, 5)], BEGUN: [(0, 0, 7)], DONE: []},
    "receipt": {"outcome": "folded"},
    "facts": [(1, FACT)],
    "published": [0],
    "incidents": [(1.0, "site-lost", "mercy is lost")],
}


def test_an_aggregator_goes_on_with_the_ledger_of_an_earlier_release(path: Path) -> None:
    # when this release opens it, twice
    for _ in range(2):
        with Ledger(path) as ledger:
            assert history_of(ledger) == HISTORY
    # then what comes next is added to what there was
    with Ledger(path) as ledger:
        ledger.record_arrivals(
            [ChunkRow(update_id=BEGUN, job="heart", site="mercy", index=1, offset=7, length=3)], [], at=4.0
        )
        ledger.record_facts("heart", [FACT], decided={WHOLE: {"outcome": "folded"}}, at=5.0)
        assert ledger.chunks("heart", BEGUN) == [(0, 0, 7), (1, 7, 3)]
        assert [fact.seq for fact in ledger.facts("heart")] == [1, 2]


def test_a_job_of_an_earlier_release_which_kept_no_participants_takes_updates_of_anybody(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.participants("heart") == {ANYBODY}


def test_a_ledger_of_an_earlier_release_is_read_without_a_trace(path: Path) -> None:
    before = path.read_bytes()
    ledger = LedgerReader(path)
    assert history_of(ledger) == HISTORY
    ledger.__exit__()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_change_of_schema_that_is_cut_short_leaves_the_old_ledger_whole(path: Path) -> None:
    # given a ledger in which the change cannot be completed, because something is in the way
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE updates_1 (x)")
    db.close()
    # when it is opened, in vain
    with pytest.raises(Exception, match="cannot open ledger"):
        Ledger(path)
    # then all is as it was, and once the obstacle is gone it goes on
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        db.execute("DROP TABLE updates_1")
    db.close()
    with Ledger(path) as ledger:
        assert history_of(ledger) == HISTORY


def test_forgetting_a_job_knows_every_table(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3"), sqlite3.connect(tmp_path / "ledger.sqlite3") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        of_a_job = {name for name in tables if "job" in [row[1] for row in db.execute(f"PRAGMA table_info({name})")]}
    assert of_a_job == set(TABLES_OF_A_JOB)


def test_scores_that_release_2_kept_are_read_and_new_ones_say_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with Ledger(path):
        pass
    # given a ledger as release 2 made it, with a score
    with sqlite3.connect(path) as db:
        db.executescript(
            """
            DROP TABLE scores;
            CREATE TABLE scores (
              job TEXT NOT NULL, version INTEGER NOT NULL, site TEXT NOT NULL, metrics TEXT NOT NULL,
              means TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (job, version, site)) WITHOUT ROWID;
            INSERT INTO scores VALUES ('heart', 3, 'mercy', '{"auc": 0.5}', '{"auc": 0.6}', 1.0);
            PRAGMA user_version=2;
            """
        )
    db.close()
    newer = Score(version=4, metrics={}, num_examples=7, not_finite=("loss",))
    with Ledger(path) as ledger:
        ledger.findings.add_score("heart", "mercy", newer, means={}, failed="", at=2.0)
        older, kept = ledger.findings.scores("heart", after=2, until=4)
        assert ledger.findings.newest_scores("heart") == [kept]
    assert (older.score, older.means) == (Score(version=3, metrics={"auc": 0.5}, num_examples=0), {"auc": 0.6})
    assert (kept.site, kept.score) == ("mercy", newer)
