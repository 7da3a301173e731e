"""The aggregator's audit log: opened, and what its lines say of events. What leaves has its line where it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import fedbus
from fedbus.aggregator.settings import LOGIN, AggregatorSettings
from fedbus.audit.changes import note_changes
from fedbus.audit.logins import Logins
from fedbus.audit.writer import Audit, AuditWriter
from fedbus.bus.connection import OnState
from fedbus.bus.url import BrokerUrl
from fedbus.core.protocol import events as e
from fedbus.store.audit import FOLDER, AuditLog
from fedbus.store.audit_kinds import Kind

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

Facts = Mapping[str, object]


@asynccontextmanager
async def open_audit(
    settings: AggregatorSettings, identity: Identity | None, *, session: str
) -> AsyncIterator[AuditWriter]:
    """The log in the aggregator's state folder. Raises StoreError."""
    folder = settings.state_dir / FOLDER
    audit_log = AuditLog(folder, keep_days=settings.audit_keep_days)
    async with AuditWriter(audit_log, release=fedbus.__version__, session=session) as writer:
        if identity is not None:
            note_changes(writer, folder, {Kind.CERTIFICATE_CHANGED: identity.facts})
        yield writer


def logins(audit: Audit, session: str, url: str, identity: Identity | None, also: OnState | None = None) -> OnState:
    """What notes the logins of a session; `also` is told as well."""
    facts = {"broker": BrokerUrl.parse(url).address, "login": LOGIN}
    if identity is not None:
        facts |= {"login": identity.name, "key": identity.fingerprint}
    return Logins(audit, session, facts, also=also).on_state


def note(audit: Audit, job: str, happened: e.Happened) -> None:
    """Add the line of an event, if it is one that the log tells of."""
    found = _line(happened)
    if found is None:
        return
    kind, facts = found
    of_job = {} if job == e.NOBODY else {"job": job}
    of_site = {} if happened.site == e.NOBODY else {"site": happened.site}
    audit.note(kind, **of_job, **of_site, **facts)


def _line(happened: e.Happened) -> tuple[Kind, Facts] | None:
    return _of_update(happened) or _of_job(happened) or _of_site(happened)


def _of_update(happened: e.Happened) -> tuple[Kind, Facts] | None:
    match happened:
        case e.UpdateFolded(update=update, base_version=base, staleness=staleness, body_bytes=size, audit=audit):
            facts = {"update": update, "bytes": size, "base_version": base, "staleness": staleness, "audit": audit}
            return Kind.UPDATE_FOLDED, facts
        case e.UpdateRefused(update=update, body_bytes=size, reason=reason, audit=audit):
            return Kind.UPDATE_REFUSED, {"update": update, "bytes": size, "reason": reason, "audit": audit}
        case e.SiteAuditDiffers(known=known, came=came):
            return Kind.AUDIT_DIFFERS, {"known": known, "came": came}
    return None


def _of_job(happened: e.Happened) -> tuple[Kind, Facts] | None:
    match happened:
        case e.JobSubmitted(login=login, task=task):
            return Kind.JOB_SUBMITTED, {"by": login, "task": task}
        case e.JobRunning(sites=sites):
            return Kind.JOB_STARTED, {"sites": sites}
        case e.JobEnded(state=state, reason=reason):
            return Kind.JOB_ENDED, {"state": state, "reason": reason}
    return None


def _of_site(happened: e.Happened) -> tuple[Kind, Facts] | None:
    match happened:
        case e.SiteJoined(release=release):
            return Kind.SITE_JOINED, {"release": release}
        case e.SiteReturned(how=how):
            return Kind.SITE_JOINED, {"how": how}
        case e.SiteAccepted():
            return Kind.SITE_ACCEPTED, {}
        case e.SiteRevoked(since=since):
            return Kind.SITE_REVOKED, {"since": since}
        case e.SiteLeft(reason=reason) | e.SiteLost(reason=reason) | e.SiteDeclined(reason=reason):
            return _WITH_REASON[type(happened)], {"reason": reason}
    return None


_WITH_REASON: Mapping[type[e.Happened], Kind] = {
    e.SiteLeft: Kind.SITE_LEFT,
    e.SiteLost: Kind.SITE_LOST,
    e.SiteDeclined: Kind.SITE_REFUSED,
}
