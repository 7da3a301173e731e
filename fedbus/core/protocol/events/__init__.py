"""What `fedbus.events` carries and what log lines are named by: one frozen dataclass a kind of event.

An event has a job, a site (NOBODY when none is meant), a kind, a sentence for people and facts for programs. The
aggregator makes them (`wire_of`); whoever watches reads them (`event_of`), also those of other releases.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

from pydantic import TypeAdapter, ValidationError

from fedbus.core.protocol.events.base import NOBODY, Happened, fact_names
from fedbus.core.protocol.events.of_jobs import (
    BrokerBack,
    BrokerUnblocked,
    DiskHasRoom,
    JobContinues,
    JobEnded,
    JobFinishing,
    JobPaused,
    JobResumed,
    JobRunning,
    JobSubmitted,
    JobTrouble,
    JobWaiting,
)
from fedbus.core.protocol.events.of_sites import (
    DataSaid,
    DataSuspect,
    LabelsCame,
    RevocationListOld,
    SiteAccepted,
    SiteAuditDiffers,
    SiteClock,
    SiteDeclined,
    SiteInfluence,
    SiteJoined,
    SiteLeft,
    SiteLimited,
    SiteLost,
    SiteResync,
    SiteReturned,
    SiteRevoked,
    SiteStandsOut,
    TrainerTrouble,
    UploadDropped,
)
from fedbus.core.protocol.events.of_versions import (
    MOST_TOLD,
    RuleChosen,
    ScoreFailed,
    ScoreNotFinite,
    UpdateFolded,
    UpdateRefused,
    VersionCommitted,
    VersionScored,
    facts_of,
)
from fedbus.core.protocol.messages import Event

__all__ = [
    "BY_KIND",
    "INCIDENTS",
    "MOST_TOLD",
    "NOBODY",
    "BrokerBack",
    "BrokerUnblocked",
    "DataSaid",
    "DataSuspect",
    "DiskHasRoom",
    "Happened",
    "JobContinues",
    "JobEnded",
    "JobFinishing",
    "JobPaused",
    "JobResumed",
    "JobRunning",
    "JobSubmitted",
    "JobTrouble",
    "JobWaiting",
    "LabelsCame",
    "RevocationListOld",
    "RuleChosen",
    "ScoreFailed",
    "ScoreNotFinite",
    "SiteAccepted",
    "SiteAuditDiffers",
    "SiteClock",
    "SiteDeclined",
    "SiteInfluence",
    "SiteJoined",
    "SiteLeft",
    "SiteLimited",
    "SiteLost",
    "SiteResync",
    "SiteReturned",
    "SiteRevoked",
    "SiteStandsOut",
    "TrainerTrouble",
    "Unknown",
    "UpdateFolded",
    "UpdateRefused",
    "UploadDropped",
    "VersionCommitted",
    "VersionScored",
    "event_of",
    "facts_of",
    "wire_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Happened):
    """An event of another release: of a kind that this one does not know, or without the facts that the kind has."""

    kind: ClassVar[str] = "unknown"


_ALL: Final = (
    JobSubmitted,
    JobWaiting,
    JobRunning,
    JobContinues,
    JobTrouble,
    JobPaused,
    JobResumed,
    JobFinishing,
    JobEnded,
    SiteJoined,
    SiteReturned,
    SiteLeft,
    SiteLost,
    SiteRevoked,
    RevocationListOld,
    SiteAccepted,
    SiteDeclined,
    SiteAuditDiffers,
    LabelsCame,
    SiteLimited,
    SiteResync,
    SiteClock,
    TrainerTrouble,
    SiteInfluence,
    SiteStandsOut,
    DataSaid,
    DataSuspect,
    BrokerBack,
    BrokerUnblocked,
    DiskHasRoom,
    UploadDropped,
    UpdateFolded,
    UpdateRefused,
    VersionCommitted,
    VersionScored,
    ScoreNotFinite,
    ScoreFailed,
    RuleChosen,
)
BY_KIND: Final[dict[str, type[Happened]]] = {cls.kind: cls for cls in _ALL}
INCIDENTS: Final[frozenset[type[Happened]]] = frozenset(
    {
        JobContinues,
        JobTrouble,
        JobPaused,
        JobResumed,
        SiteLeft,
        SiteLost,
        SiteReturned,
        SiteRevoked,
        RevocationListOld,
        SiteAuditDiffers,
        SiteResync,
        TrainerTrouble,
        SiteInfluence,
        SiteStandsOut,
        ScoreNotFinite,
        ScoreFailed,
        BrokerBack,
        BrokerUnblocked,
        DiskHasRoom,
        UploadDropped,
    }
)
"""Events that are kept in the ledger and shown with the job: what a person asks about the morning after."""


def wire_of(event: Happened, *, job: str, at: float) -> Event:
    """The event as it stands on the bus; `at` in seconds since the epoch."""
    return Event(at=at, job=job, site=event.site, kind=event.kind, text=event.text, facts=event.facts)


def event_of(event: Event) -> Happened:
    """Read an event; Unknown when this release cannot. Never raises."""
    cls = BY_KIND.get(event.kind)
    if cls is not None:
        said: dict[str, Any] = {name: event.facts[name] for name in fact_names(cls) if name in event.facts}
        try:
            found: Happened = _adapter(event.kind).validate_python({**said, "site": event.site, "told": event.text})
        except ValidationError:
            return Unknown(site=event.site, told=event.text)
        return found
    return Unknown(site=event.site, told=event.text)


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(BY_KIND[kind])
