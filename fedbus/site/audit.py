"""What a site's audit log tells of the daemon and of its jobs; what leaves is told by the door."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import fedbus
from fedbus.audit.changes import note_changes
from fedbus.audit.logins import Logins
from fedbus.audit.writer import Audit, AuditWriter
from fedbus.bus.connection import OnState
from fedbus.bus.url import BrokerUrl
from fedbus.core.protocol import messages as m
from fedbus.errors import ProtocolError
from fedbus.site.rules import SiteRules
from fedbus.site.settings import SiteSettings
from fedbus.site.terms import Terms, task_versions
from fedbus.store.audit import FOLDER, AuditLog
from fedbus.store.audit_kinds import Kind

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

MOST_JOBS = 1000
MOST_LINES = 2000
REFUSED_AGAIN_S = 60.0


@asynccontextmanager
async def open_audit(
    settings: SiteSettings, rules: SiteRules, identity: Identity | None, *, session: str
) -> AsyncIterator[AuditWriter]:
    """The log of the site in its state folder, which says first what is another than before. Raises StoreError."""
    folder = settings.state_dir / FOLDER
    audit_log = AuditLog(folder, keep_days=settings.audit_keep_days)
    async with AuditWriter(audit_log, site=settings.site_name, release=fedbus.__version__, session=session) as writer:
        versions = task_versions()
        now: dict[Kind, dict[str, Any]] = {
            Kind.POLICY_CHANGED: {"policy": rules.named},
            Kind.TASK_CHANGED: {"tasks": {task: versions.get(task, "") for task in rules.policy.tasks}},
        }
        if identity is not None:
            now[Kind.CERTIFICATE_CHANGED] = identity.facts
        note_changes(writer, folder, now)
        yield writer


def logins(audit: Audit, session: str, url: str, identity: Identity | None) -> OnState:
    """What notes the logins of a session."""
    broker = BrokerUrl.parse(url)
    login = broker.user if identity is None else identity.name
    facts = {"broker": broker.address, "login": login} | ({} if identity is None else {"key": identity.fingerprint})
    return Logins(audit, session, facts).on_state


class JobLines:
    """Lines on what becomes of offers and jobs, each once however often it is said."""

    def __init__(self, audit: Audit, rules: SiteRules, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._rules = rules
        self._clock = clock
        self._said: OrderedDict[tuple[str, Kind], str] = OrderedDict()
        self._refused_at: float | None = None
        self._refusals = 0
        self._hour_ends_at = -math.inf
        self._lines = self._lost = 0

    def terms(self, task: str, submitter: str) -> Terms:
        """Under what something of a job of this task leaves from now on."""
        version = task_versions().get(task, "")
        return Terms(submitter=submitter, task=task, task_version=version, policy=self._rules.named)

    def certificate_changed(self, identity: Identity) -> None:
        """The site uses another certificate."""
        self._audit.note(Kind.CERTIFICATE_CHANGED, **identity.facts)

    def offered(self, offer: m.JobOffer) -> None:
        """The aggregator offers a job."""
        self._say(Kind.JOB_OFFERED, offer.job, submitter=offer.submitter, task=str(offer.spec.get("task", "")))

    def accepted(self, job: str, terms: Terms) -> None:
        """The site works for the job."""
        self._say(Kind.JOB_ACCEPTED, job, **terms.facts)

    def declined(self, job: str, reason: str) -> None:
        """The site does not work for the job."""
        self._say(Kind.JOB_DECLINED, job, reason=reason, policy=self._rules.named)

    def told(self, message: object) -> None:
        """A control message about a job that the site works for."""
        match message:
            case m.JobStarted(job=job):
                self._say(Kind.JOB_STARTED, job)
            case m.JobEnded(job=job, state=state, reason=reason):
                self._say(Kind.JOB_ENDED, job, state=str(state), reason=reason)
                self._forget(job)

    def rules_changed(self) -> None:
        """Other rules hold from now on."""
        self._audit.note(Kind.POLICY_CHANGED, policy=self._rules.named)

    def stopped(self, job: str, reason: str) -> None:
        """The site stops its work for the job by itself."""
        self._audit.note(Kind.JOB_STOPPED, job=job, reason=reason)
        self._forget(job)

    def refused(self, exc: ProtocolError) -> None:
        """A message was not taken; of many the first of a minute is said, and how many there were before."""
        self._refusals += 1
        now = self._clock()
        if self._refused_at is None or now - self._refused_at >= REFUSED_AGAIN_S:
            self._audit.note(Kind.MESSAGE_REFUSED, reason=str(exc), messages=self._refusals)
            self._refused_at, self._refusals = now, 0

    def _say(self, kind: Kind, job: str, **facts: object) -> None:
        said = repr(sorted(facts.items()))
        if self._said.get((job, kind)) != said:
            self._said[job, kind] = said
            if self._room():
                self._audit.note(kind, job=job, **facts)
        while len(self._said) > MOST_JOBS:
            self._said.popitem(last=False)

    def _room(self) -> bool:
        """Of lines that an aggregator can set off without end, so many an hour are kept, and the rest is counted."""
        now = self._clock()
        if now >= self._hour_ends_at:
            if self._lost:
                self._audit.note(Kind.LINES_LOST, lines=self._lost)
            self._hour_ends_at, self._lines, self._lost = now + 3600.0, 0, 0
        self._lines += 1
        self._lost += self._lines > MOST_LINES
        return self._lines <= MOST_LINES

    def _forget(self, job: str) -> None:
        for kind in (Kind.JOB_STARTED, Kind.JOB_ACCEPTED):
            self._said.pop((job, kind), None)
