"""The tables of a ledger, and how a ledger of an earlier release becomes one of this release.

    jobs          one row a job: spec, state, layout of its params
    participants  which sites have accepted a job; ANYBODY: the job was begun by a release that did not keep them
    updates       one row an update; `job` and `update_id` are the primary key, so that a second arrival changes nothing
    chunks        where each chunk of an update lies in its spool file
    facts         what was decided, in order: folded, refused, committed. State = newest checkpoint + the facts after it
    versions      which versions were published to the model log and confirmed
    incidents     what went wrong and what came of it, in words for people
    scores        what a site measured of a version, or why it could not, and the means over the sites by then
    trend         the course of the mean that ranks versions, one point a version; no mean: it is of no use somewhere
    answers       what a site said when it was asked what is no score, or why it could not
    submissions   the submit of a job as it was signed; with `follows`, it is the submit of the job that it follows
    used          message ids of all signed submits ever, so that none makes a second job
    model_logs    the name of each job's stream, a secret of the sites that take part in it
    audit_heads   of each site and job the newest head of the site's audit log; stays when the job is forgotten
    epochs        the keys of a job's model log, where there is a kit; fresh: it begins with a snapshot, for a joiner
    chains        of each published version the number that names it and all before it, where there is a kit

`spreads` of a score is a column that a release before leaves alone, so that it needs no schema of its own.
Schema 1 knew an update by its id alone, so that one id in two jobs made one row of two updates. Schema 2 had of a score
its metrics alone, and the first ledgers of it no scores at all.
"""

from __future__ import annotations

import sqlite3

SCHEMA_VERSION = 3
READABLE = (1, 2, SCHEMA_VERSION)
ANYBODY = "*"
TABLES_OF_A_JOB = (
    "updates",
    "chunks",
    "participants",
    "facts",
    "versions",
    "incidents",
    "scores",
    "trend",
    "answers",
    "model_logs",
    "epochs",
    "chains",
    "submissions",
    "jobs",
)

_UPDATES = """
CREATE TABLE IF NOT EXISTS updates (
  job TEXT NOT NULL, update_id TEXT NOT NULL, site TEXT NOT NULL, manifest TEXT, state TEXT NOT NULL,
  received_at REAL NOT NULL, receipt TEXT, PRIMARY KEY (job, update_id));
CREATE INDEX IF NOT EXISTS updates_by_job ON updates (job, state);
CREATE TABLE IF NOT EXISTS chunks (
  job TEXT NOT NULL, update_id TEXT NOT NULL, idx INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
  PRIMARY KEY (job, update_id, idx)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS participants (
  job TEXT NOT NULL, site TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (job, site)) WITHOUT ROWID;
"""
_TABLES = f"""
CREATE TABLE IF NOT EXISTS jobs (
  job TEXT PRIMARY KEY, spec TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', layout TEXT,
  message_id TEXT UNIQUE, submitted_by TEXT NOT NULL, submitted_at REAL NOT NULL, started_at REAL, ended_at REAL,
  result TEXT);
{_UPDATES}
CREATE TABLE IF NOT EXISTS facts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS facts_by_job ON facts (job, seq);
CREATE TABLE IF NOT EXISTS versions (
  job TEXT NOT NULL, version INTEGER NOT NULL, published_at REAL NOT NULL, PRIMARY KEY (job, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS incidents (job TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS incidents_by_job ON incidents (job);
CREATE TABLE IF NOT EXISTS scores (
  job TEXT NOT NULL, version INTEGER NOT NULL, site TEXT NOT NULL, metrics TEXT NOT NULL, means TEXT NOT NULL,
  at REAL NOT NULL, num_examples INTEGER NOT NULL DEFAULT 0, not_finite TEXT NOT NULL DEFAULT '[]',
  failed TEXT NOT NULL DEFAULT '', spreads TEXT NOT NULL DEFAULT '{{}}', PRIMARY KEY (job, version, site))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trend (
  job TEXT NOT NULL, version INTEGER NOT NULL, mean REAL, PRIMARY KEY (job, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
  job TEXT NOT NULL, asked TEXT NOT NULL, site TEXT NOT NULL, body TEXT NOT NULL, failed TEXT NOT NULL,
  at REAL NOT NULL, PRIMARY KEY (job, asked, site)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS submissions (
  job TEXT PRIMARY KEY, follows TEXT NOT NULL, signed TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used (message_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_heads (
  site TEXT NOT NULL, of_job TEXT NOT NULL, sequence INTEGER NOT NULL, sha256 TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (site, of_job)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model_logs (job TEXT PRIMARY KEY, stream TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epochs (
  job TEXT NOT NULL, epoch INTEGER NOT NULL, key BLOB NOT NULL, fresh INTEGER NOT NULL, PRIMARY KEY (job, epoch))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chains (
  job TEXT NOT NULL, version INTEGER NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (job, version)) WITHOUT ROWID;
"""
_AWAY_WITH_1 = """
DROP INDEX updates_by_job;
ALTER TABLE updates RENAME TO updates_1;
ALTER TABLE chunks RENAME TO chunks_1;
"""
_OVER_FROM_1 = """
INSERT INTO updates (job, update_id, site, manifest, state, received_at, receipt)
  SELECT job, update_id, site, manifest, state, received_at, receipt FROM updates_1 ORDER BY rowid;
INSERT INTO chunks (job, update_id, idx, offset, length)
  SELECT u.job, c.update_id, c.idx, c.offset, c.length FROM chunks_1 c JOIN updates_1 u ON u.update_id = c.update_id;
INSERT INTO participants (job, site, at) SELECT job, '*', submitted_at FROM jobs;
DROP TABLE chunks_1;
DROP TABLE updates_1;
"""
_SCORES_FROM_2 = """
ALTER TABLE scores ADD COLUMN num_examples INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scores ADD COLUMN not_finite TEXT NOT NULL DEFAULT '[]';
ALTER TABLE scores ADD COLUMN failed TEXT NOT NULL DEFAULT '';
"""
_SPREADS = "ALTER TABLE scores ADD COLUMN spreads TEXT NOT NULL DEFAULT '{}';"
_SCORES_WITHOUT = "CREATE TEMP VIEW scores AS SELECT *, '{}' AS spreads FROM main.scores;"
_CHUNKS_OF_1 = """
CREATE TEMP VIEW chunks AS
  SELECT u.job AS job, c.update_id AS update_id, c.idx AS idx, c.offset AS offset, c.length AS length
  FROM main.chunks c JOIN main.updates u ON u.update_id = c.update_id;
"""


def make(db: sqlite3.Connection, found: int) -> None:
    """Bring a database of schema `found` (0: empty) to SCHEMA_VERSION, whole or not at all. Raises sqlite3.Error."""
    steps = _AWAY_WITH_1 + _UPDATES + _OVER_FROM_1 if found == 1 else ""
    columns = _columns_of_scores(db)
    if columns and "num_examples" not in columns:
        steps += _SCORES_FROM_2
    if columns and "spreads" not in columns:
        steps += _SPREADS
    # executescript ends an open transaction, so that it must hold its own
    try:
        db.executescript(f"BEGIN IMMEDIATE;{steps}{_TABLES}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def read_as_newest(db: sqlite3.Connection) -> None:
    """Let queries of this release read a database of an earlier schema, without a write to it."""
    if db.execute("PRAGMA user_version").fetchone()[0] == 1:
        db.executescript(_CHUNKS_OF_1)
    columns = _columns_of_scores(db)
    if columns and "spreads" not in columns:
        db.executescript(_SCORES_WITHOUT)


def _columns_of_scores(db: sqlite3.Connection) -> set[str]:
    return {name for _, name, *_ in db.execute("PRAGMA table_info(scores)")}
