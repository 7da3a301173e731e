"""What an audit log tells of: the kinds of its lines, and what each means. `deploy/docs/audit.md` has their facts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    # of the log itself, at a site and at an aggregator
    LOG_BEGUN = "log-begun"
    LOG_OPENED = "log-opened"
    LOG_CLOSED = "log-closed"
    LINE_CUT = "line-cut"
    LINES_LOST = "lines-lost"
    LINES_DELETED = "lines-deleted"
    # security, at both
    BROKER_LOGIN = "broker-login"
    BROKER_REFUSED = "broker-refused"
    CERTIFICATE_CHANGED = "certificate-changed"
    # a site
    POLICY_CHANGED = "policy-changed"
    TASK_CHANGED = "task-changed"
    UPDATE_LEAVES = "update-leaves"
    MESSAGE_LEAVES = "message-leaves"
    MESSAGES_LEAVE = "messages-leave"
    WITHHELD = "withheld"
    MESSAGE_REFUSED = "message-refused"
    JOB_OFFERED = "job-offered"
    JOB_ACCEPTED = "job-accepted"
    JOB_DECLINED = "job-declined"
    JOB_STARTED = "job-started"
    JOB_STOPPED = "job-stopped"
    JOB_ENDED = "job-ended"
    TRAINER_STARTED = "trainer-started"
    TRAINER_ENDED = "trainer-ended"
    STOP_NOW = "stop-now"
    FORGET = "forget"
    # an aggregator
    JOB_SUBMITTED = "job-submitted"
    JOB_ABORTED = "job-aborted"
    JOB_FORGOTTEN = "job-forgotten"
    SITE_JOINED = "site-joined"
    SITE_LEFT = "site-left"
    SITE_LOST = "site-lost"
    SITE_REVOKED = "site-revoked"
    SITE_ACCEPTED = "site-accepted"
    SITE_REFUSED = "site-refused"
    UPDATE_FOLDED = "update-folded"
    UPDATE_REFUSED = "update-refused"
    VERSION_LEAVES = "version-leaves"
    PARAMS_LEAVE = "params-leave"
    DEAD_LETTER = "dead-letter"
    AUDIT_DIFFERS = "audit-differs"
    KIT_CHANGED = "kit-changed"


MEANINGS: Mapping[Kind, str] = {
    Kind.LOG_BEGUN: "the first line of a new log",
    Kind.LOG_OPENED: "a daemon has started, or a command writes by itself",
    Kind.LOG_CLOSED: "the daemon has ended as it should",
    Kind.LINE_CUT: "a line that a kill has cut ends here; nothing had left under it",
    Kind.LINES_LOST: "so many lines could not be kept while the disk was full; none of them told of what leaves",
    Kind.LINES_DELETED: "lines up to this sequence are older than audit_keep_days and go",
    Kind.BROKER_LOGIN: "the broker has let this daemon in",
    Kind.BROKER_REFUSED: "the broker has refused this daemon's login",
    Kind.CERTIFICATE_CHANGED: "the daemon uses another certificate, or another key, than before",
    Kind.POLICY_CHANGED: "another policy holds from here on",
    Kind.TASK_CHANGED: "a task is installed in another version than before, is new, or is gone",
    Kind.UPDATE_LEAVES: "an update leaves; it counts as having left from here on",
    Kind.MESSAGE_LEAVES: "a message leaves that is no update",
    Kind.MESSAGES_LEAVE: "messages that leave often do so for the next hour; so many have since the line before",
    Kind.WITHHELD: "something did not leave, because the policy does not let it",
    Kind.MESSAGE_REFUSED: "a message from the bus was not taken",
    Kind.JOB_OFFERED: "a job was offered",
    Kind.JOB_ACCEPTED: "the site takes part in a job",
    Kind.JOB_DECLINED: "the site does not take part in a job",
    Kind.JOB_STARTED: "the job has begun; its model log is followed",
    Kind.JOB_STOPPED: "the site has stopped its work for a job by itself",
    Kind.JOB_ENDED: "a job has ended",
    Kind.TRAINER_STARTED: "a process trains for a job",
    Kind.TRAINER_ENDED: "that process has ended",
    Kind.STOP_NOW: "somebody at the site has stopped it at once",
    Kind.FORGET: "somebody at the site has deleted what it kept",
    Kind.JOB_SUBMITTED: "a job was submitted",
    Kind.JOB_ABORTED: "a person ends a job",
    Kind.JOB_FORGOTTEN: "a job was deleted",
    Kind.SITE_JOINED: "a site is here, or is back",
    Kind.SITE_LEFT: "a site said goodbye",
    Kind.SITE_LOST: "a site is silent for longer than its lease",
    Kind.SITE_REVOKED: "a site's certificate was revoked",
    Kind.SITE_ACCEPTED: "a site takes part in a job",
    Kind.SITE_REFUSED: "a site declined a job, or was left out",
    Kind.UPDATE_FOLDED: "an update counts",
    Kind.UPDATE_REFUSED: "an update does not count",
    Kind.VERSION_LEAVES: "a version is put into the model log",
    Kind.PARAMS_LEAVE: "a submitter fetches params",
    Kind.DEAD_LETTER: "messages that break the protocol were put aside",
    Kind.AUDIT_DIFFERS: "a site's audit log is not that of the head it sent before: cut, rewritten or begun anew",
    Kind.KIT_CHANGED: "a file of the kit was replaced",
}
