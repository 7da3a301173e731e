"""Kinds of events, as constants: what `fedbus.events` carries and what the log lines are named.

An event has a job, a site ('-' when none is meant), a kind of this list, a sentence for people and facts for programs.
"""

from typing import Final

NOBODY: Final = "-"

JOB_SUBMITTED: Final = "job-submitted"
JOB_WAITING: Final = "job-waiting"
JOB_RUNNING: Final = "job-running"
JOB_FINISHING: Final = "job-finishing"
JOB_ENDED: Final = "job-ended"

SITE_JOINED: Final = "site-joined"
SITE_LEFT: Final = "site-left"
SITE_LOST: Final = "site-lost"
SITE_ACCEPTED: Final = "site-accepted"
SITE_DECLINED: Final = "site-declined"
SITE_RESYNC: Final = "site-resync"
TRAINER_TROUBLE: Final = "trainer-trouble"

UPDATE_FOLDED: Final = "update-folded"
UPDATE_REFUSED: Final = "update-refused"
VERSION_COMMITTED: Final = "version-committed"
VERSION_SCORED: Final = "version-scored"
