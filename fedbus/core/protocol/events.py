"""Kinds of events, as constants: what `fedbus.events` carries and what the log lines are named.

An event has a job, a site ('-' when none is meant), a kind of this list, a sentence for people and facts for programs.
"""

from typing import Final

NOBODY: Final = "-"

JOB_SUBMITTED: Final = "job-submitted"
JOB_WAITING: Final = "job-waiting"
JOB_RUNNING: Final = "job-running"
JOB_CONTINUES: Final = "job-continues"
JOB_TROUBLE: Final = "job-trouble"
JOB_PAUSED: Final = "job-paused"
JOB_RESUMED: Final = "job-resumed"
JOB_FINISHING: Final = "job-finishing"
JOB_ENDED: Final = "job-ended"

SITE_JOINED: Final = "site-joined"
SITE_RETURNED: Final = "site-returned"
SITE_LEFT: Final = "site-left"
SITE_LOST: Final = "site-lost"
SITE_ACCEPTED: Final = "site-accepted"
SITE_DECLINED: Final = "site-declined"
SITE_LIMITED: Final = "site-limited"
SITE_RESYNC: Final = "site-resync"
SITE_CLOCK: Final = "site-clock"
TRAINER_TROUBLE: Final = "trainer-trouble"
SITE_STANDS_OUT: Final = "site-stands-out"

BROKER_BACK: Final = "broker-back"
BROKER_UNBLOCKED: Final = "broker-unblocked"
DISK_HAS_ROOM: Final = "disk-has-room"

UPLOAD_DROPPED: Final = "upload-dropped"
UPDATE_FOLDED: Final = "update-folded"
UPDATE_REFUSED: Final = "update-refused"
VERSION_COMMITTED: Final = "version-committed"
VERSION_SCORED: Final = "version-scored"
SCORE_NOT_FINITE: Final = "score-not-finite"
SCORE_FAILED: Final = "score-failed"
RULE_CHOSEN: Final = "rule-chosen"

INCIDENTS: Final = frozenset(
    {
        JOB_CONTINUES,
        JOB_TROUBLE,
        JOB_PAUSED,
        JOB_RESUMED,
        SITE_LEFT,
        SITE_LOST,
        SITE_RETURNED,
        SITE_RESYNC,
        TRAINER_TROUBLE,
        SITE_STANDS_OUT,
        SCORE_NOT_FINITE,
        SCORE_FAILED,
        BROKER_BACK,
        BROKER_UNBLOCKED,
        DISK_HAS_ROOM,
        UPLOAD_DROPPED,
    }
)
"""Kinds that are kept in the ledger and shown with the job: what a person asks about the morning after."""
