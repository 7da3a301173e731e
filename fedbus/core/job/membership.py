"""Who is here: the sites of the federation, their sessions and leases.

What lives here: what Join, SiteStatus and Leave mean. What may not: clocks (`now` is an argument: seconds, never
falling), messages to send, which job a site works for (see `life`).

    state      Join (new session)   status (same session)   Leave (same session)   lease runs out
    unknown    online               ignored                 ignored                -
    online     online               online                  left                   lost
    lost       online               online                  left                   -
    left       online               ignored                 ignored                -

A site is one session at a time, the one that joined last: a restarted daemon need not wait for its old lease. Messages
of an earlier session, also its Join when delivered late, are ignored. So of two daemons with one name the newcomer
counts; `joined` answers `Joined.REPLACED`, and `status` of the other one answers `Heard.OLD_SESSION`, so that it can be
said to people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from fedbus.core.job.pace import Pace
from fedbus.core.job.skew import Skew
from fedbus.core.protocol.messages import JobActivity, Join, Leave, SiteStatus

FIRST_LEASE_S = 30.0
"""Lease from a Join until the first status, which brings the lease that the site wants."""
MIN_LEASE_S, MAX_LEASE_S = 1.0, 3600.0
ASK_AGAIN_S = 5.0
PAST_SESSIONS = 16
"""So many replaced sessions are remembered per site."""


class SiteState(StrEnum):
    ONLINE = "online"
    LOST = "lost"
    LEFT = "left"


class Joined(StrEnum):
    """What a Join meant."""

    NEW = "new"
    RETURNED = "returned"
    AGAIN = "again"
    REPLACED = "replaced a session that was online"
    OLD_SESSION = "old session"


class Heard(StrEnum):
    """What a status or Leave meant; all but RENEWED and BACK were ignored.

    UNKNOWN_SITE asks for a Join; of the statuses that waited during an outage only the first one does.
    """

    RENEWED = "renewed"
    BACK = "back"
    UNKNOWN_SITE = "unknown site"
    UNKNOWN_AGAIN = "unknown site, asked a moment ago"
    OLD_SESSION = "old session"
    HAS_LEFT = "has left"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """One site as it is known. `since`: when the state began. `activities`: by job, from the newest status.

    paces: of its trainings, by job. skew: of its clock, in this session. seal_keys: what is sealed to the site goes to
    these, see `Join`.
    """

    name: str
    state: SiteState
    since: float
    session: str
    tasks: tuple[str, ...]
    device: str
    fedbus_version: str
    activities: Mapping[str, JobActivity] = field(default_factory=lambda: MappingProxyType({}))
    paces: Mapping[str, Pace] = field(default_factory=lambda: MappingProxyType({}))
    last_heard_at: float
    lease_until: float
    reason: str = ""
    skew: Skew = field(default_factory=Skew)
    seal_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Membership:
    """All sites that ever joined since this object was made."""

    def __init__(self) -> None:
        self._sites: dict[str, SiteView] = {}
        self._past: dict[str, tuple[str, ...]] = {}
        self._asked_at: dict[str, float] = {}

    def joined(self, join: Join, *, now: float) -> Joined:
        """Take in a Join; the site is online unless the answer is OLD_SESSION."""
        old = self._sites.get(join.site)
        if join.session in self._past.get(join.site, ()):
            return Joined.OLD_SESSION
        if old is None:
            meant = Joined.NEW
        elif old.state is not SiteState.ONLINE:
            meant = Joined.RETURNED
        else:
            meant = Joined.AGAIN if old.session == join.session else Joined.REPLACED
        if old is not None and old.session != join.session:
            self._past[join.site] = (*self._past.get(join.site, ()), old.session)[-PAST_SESSIONS:]
        again = old is not None and meant is Joined.AGAIN
        self._sites[join.site] = SiteView(
            name=join.site,
            state=SiteState.ONLINE,
            since=old.since if old is not None and again else now,
            session=join.session,
            tasks=join.tasks,
            device=join.device,
            fedbus_version=join.fedbus_version,
            activities=old.activities if old is not None and again else MappingProxyType({}),
            last_heard_at=now,
            lease_until=max(now + FIRST_LEASE_S, old.lease_until if old is not None and again else now),
            skew=old.skew if old is not None and again else Skew(),
            seal_keys=MappingProxyType(dict(join.seal_keys)),
        )
        return meant

    def status(self, status: SiteStatus, *, now: float, epoch_s: float = 0.0) -> Heard:
        """Take in a status: renew the lease, note what the site does. BACK: the site was lost.

        `epoch_s` is the time of day at `now`, in seconds since the epoch; with 0 the site's clock is not looked at.
        """
        heard = self._heard(status.site, status.session)
        if heard is Heard.UNKNOWN_SITE:
            return self._unknown(status.site, now=now)
        if heard is not Heard.RENEWED:
            return heard
        old = self._sites[status.site]
        back = old.state is SiteState.LOST
        self._sites[status.site] = replace(
            old,
            state=SiteState.ONLINE,
            since=now if back else old.since,
            activities=MappingProxyType({activity.job: activity for activity in status.jobs}),
            paces=MappingProxyType(_paces(status, old.paces, now=now)),
            last_heard_at=now,
            # max first: it turns a NaN from the wire into the minimum
            lease_until=now + min(max(MIN_LEASE_S, status.lease_s), MAX_LEASE_S),
            reason="",
            skew=old.skew.after(status.said_at, now=epoch_s) if epoch_s else old.skew,
        )
        return Heard.BACK if back else Heard.RENEWED

    def left(self, leave: Leave, *, now: float) -> Heard:
        """Take in a goodbye; nobody waits for the site from now on. RENEWED: it was taken in."""
        heard = self._heard(leave.site, leave.session)
        if heard is Heard.RENEWED:
            self._end(leave.site, SiteState.LEFT, leave.reason, now=now)
        return heard

    def put_out(self, site: str, reason: str, *, now: float) -> bool:
        """End a session without its word, as by Leave: nobody waits for the site. False when that is so already."""
        known = self._sites.get(site)
        if known is None or known.state is SiteState.LEFT:
            return False
        self._end(site, SiteState.LEFT, reason, now=now)
        return True

    def expire(self, *, now: float) -> list[str]:
        """Mark the sites whose lease has run out as lost, return their names in order."""
        lost = sorted(
            site.name for site in self._sites.values() if site.state is SiteState.ONLINE and site.lease_until <= now
        )
        for name in lost:
            silent_s = now - self._sites[name].last_heard_at
            self._end(name, SiteState.LOST, f"nothing heard for {silent_s:.0f} s", now=now)
        return lost

    def online(self, *, now: float) -> frozenset[str]:
        """Return the sites that hold a lease at `now`, whether or not `expire` was called."""
        return frozenset(
            site.name for site in self._sites.values() if site.state is SiteState.ONLINE and site.lease_until > now
        )

    def get(self, site: str) -> SiteView | None:
        """Return one site; None when it never joined."""
        return self._sites.get(site)

    def views(self) -> tuple[SiteView, ...]:
        """Return all sites in order of their names."""
        return tuple(self._sites[name] for name in sorted(self._sites))

    def _heard(self, site: str, session: str) -> Heard:
        known = self._sites.get(site)
        if known is None:
            return Heard.UNKNOWN_SITE
        if known.session != session:
            return Heard.OLD_SESSION
        return Heard.HAS_LEFT if known.state is SiteState.LEFT else Heard.RENEWED

    def _unknown(self, site: str, *, now: float) -> Heard:
        if now - self._asked_at.get(site, -math.inf) < ASK_AGAIN_S:
            return Heard.UNKNOWN_AGAIN
        self._asked_at[site] = now
        return Heard.UNKNOWN_SITE

    def _end(self, site: str, state: SiteState, reason: str, *, now: float) -> None:
        self._sites[site] = replace(
            self._sites[site], state=state, since=now, activities=MappingProxyType({}), reason=reason
        )


def _paces(status: SiteStatus, before: Mapping[str, Pace], *, now: float) -> dict[str, Pace]:
    """Of the jobs that the site still works for."""
    told = ((doing.job, Pace.told(doing, before.get(doing.job), now=now)) for doing in status.jobs)
    return {job: pace for job, pace in told if pace is not None}
