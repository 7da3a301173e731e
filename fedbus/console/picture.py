"""The picture of a job: what its events come to, for whoever watches. `after(picture, event)` is all there is to it.

An event that this release does not know, that lacks a fact it needs or that is of another job leaves the picture as it
is. Sentences for people stand in the events; a picture holds states and numbers, and the one sentence that counts now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event, JobState, UpdateId


class Presence(StrEnum):
    """Where a site is, as far as events of the job have said."""

    UNKNOWN = "not yet"
    HERE = "here"
    LEFT = "left"
    LOST = "lost"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePicture:
    """One site. Versions are those at which something happened; None: it has not.

    joined_at: 0 for a site that was there when the work began. updates_since_back: since it came back the last time.
    metrics: of the newest version that it scored. trouble: why it declined, left or could not train, in words.
    """

    presence: Presence = Presence.UNKNOWN
    joined_at: int | None = None
    left_at: int | None = None
    back_at: int | None = None
    updates: int = 0
    refused: int = 0
    staleness_sum: int = 0
    updates_since_back: int = 0
    scored_version: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""

    @property
    def mean_staleness(self) -> float:
        """0 before the first update."""
        return self.staleness_sum / self.updates if self.updates else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """An update that was folded."""

    update: str
    site: str
    staleness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One version: when, from whom, and the means of the scores that the sites had given when it was scored last."""

    version: int
    at: float
    contributions: tuple[Contribution, ...] = ()
    means: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One job; "" until its submission was seen. Times are seconds since the epoch, of the aggregator's clock.

    state: a `JobState`, or what a later release calls it. says: why it waits, while it does, or how it ended.
    buffer: updates that are part of no version yet. version_bytes: what was published of versions, in bytes.
    """

    job: str = ""
    state: str = ""
    says: str = ""
    version: int = 0
    updates: int = 0
    refused: int = 0
    update_bytes: int = 0
    version_bytes: int = 0
    rule: str = ""
    sites: Mapping[str, SitePicture] = field(default_factory=dict)
    buffer: tuple[Contribution, ...] = ()
    curve: tuple[Point, ...] = ()
    began_at: float | None = None
    last_version_at: float | None = None
    ended: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.began_at is not None and not self.ended

    @property
    def finished(self) -> bool:
        """Whether the job has ended well."""
        return self.ended and self.state == JobState.FINISHED

    @property
    def training_s(self) -> float:
        """From the beginning of the work to the last version."""
        if self.began_at is None or self.last_version_at is None:
            return 0.0
        return max(0.0, self.last_version_at - self.began_at)

    def site(self, name: str) -> SitePicture:
        """What is known of a site; of one that nothing was heard of: that."""
        return self.sites.get(name, _NOTHING_KNOWN)

    def waiting_for(self) -> list[str]:
        """Sites that took part and are not here, by name."""
        gone = (Presence.LEFT, Presence.LOST)
        return sorted(name for name, site in self.sites.items() if site.presence in gone)


_NOTHING_KNOWN = SitePicture()


def after(picture: Picture, event: Event) -> Picture:
    """The picture once this has happened too."""
    if picture.job and event.job != picture.job:
        return picture
    happened = e.event_of(event)
    match happened:
        case e.UpdateFolded() | e.UpdateRefused() | e.VersionCommitted() | e.VersionScored() | e.RuleChosen():
            return _after_work(picture, happened, event.at)
        case e.JobSubmitted():
            return replace(picture, job=event.job, state=picture.state or str(JobState.SUBMITTED))
    return replace(_after_site(picture, happened), **_of_job(picture, happened, event.at))


def _of_job(picture: Picture, happened: e.Happened, at: float) -> dict[str, Any]:
    """What is new of the job itself."""
    found: dict[str, Any] = {}
    match happened:
        case e.JobWaiting() if picture.state in ("", JobState.SUBMITTED):
            found = {"says": happened.text, "state": str(JobState.WAITING)}
        case e.JobWaiting() | e.JobPaused() | e.JobTrouble():
            found = {"says": happened.text}
        case e.JobRunning():
            found = {"says": "", "state": str(JobState.RUNNING), "began_at": at}
        case e.JobContinues():
            found = {"says": happened.text, "state": picture.state or str(JobState.RUNNING)}
        case e.JobResumed():
            found = {"says": ""}
        case e.JobFinishing():
            found = {"says": happened.text, "state": str(JobState.FINISHING)}
        case e.JobEnded(state=state, result=result):
            found = {"says": happened.text, "state": state, "ended": True, "result": result}
    return found


_Work = e.UpdateFolded | e.UpdateRefused | e.VersionCommitted | e.VersionScored | e.RuleChosen


def _after_work(picture: Picture, happened: _Work, at: float) -> Picture:
    match happened:
        case e.UpdateFolded():
            return _folded(picture, happened)
        case e.UpdateRefused(site=site):
            changed = _with(picture, site, refused=picture.site(site).refused + 1)
            return replace(changed, refused=picture.refused + 1)
        case e.VersionCommitted():
            return _committed(picture, happened, at)
        case e.VersionScored():
            return _scored(picture, happened)
        case e.RuleChosen(rule=rule):
            return replace(picture, rule=rule)


def _folded(picture: Picture, happened: e.UpdateFolded) -> Picture:
    site, was = happened.site, picture.site(happened.site)
    changed = _with(
        picture,
        site,
        updates=was.updates + 1,
        staleness_sum=was.staleness_sum + happened.staleness,
        updates_since_back=was.updates_since_back + (was.back_at is not None),
    )
    contribution = Contribution(update=happened.update, site=site, staleness=happened.staleness)
    return replace(
        changed,
        updates=picture.updates + 1,
        update_bytes=picture.update_bytes + happened.body_bytes,
        buffer=(*picture.buffer, contribution),
    )


def _committed(picture: Picture, happened: e.VersionCommitted, at: float) -> Picture:
    known = {contribution.update: contribution for contribution in picture.buffer}
    made = tuple(known.get(update) or _unseen(update) for update in happened.updates)
    return replace(
        picture,
        version=happened.version,
        version_bytes=picture.version_bytes + happened.body_bytes,
        buffer=tuple(contribution for contribution in picture.buffer if contribution.update not in happened.updates),
        curve=(*picture.curve, Point(version=happened.version, at=at, contributions=made)),
        last_version_at=at,
        says="",
    )


def _unseen(update: str) -> Contribution:
    """An update whose folding was not seen: it came before the watcher."""
    try:
        site = UpdateId.parse(update).site
    except ValueError:
        site = e.NOBODY
    return Contribution(update=update, site=site, staleness=0)


def _scored(picture: Picture, happened: e.VersionScored) -> Picture:
    was = picture.site(happened.site)
    if was.scored_version is not None and happened.version < was.scored_version:
        return picture
    metrics = {**was.metrics, **happened.metrics}
    changed = _with(picture, happened.site, scored_version=happened.version, metrics=metrics)
    curve = [
        replace(point, means=happened.means) if point.version == happened.version else point for point in picture.curve
    ]
    return replace(changed, curve=tuple(curve))


def _after_site(picture: Picture, happened: e.Happened) -> Picture:
    found: dict[str, Any] = {}
    match happened:
        case e.SiteJoined() | e.SiteReturned() | e.SiteAccepted():
            return _here(picture, happened.site)
        case e.SiteLeft() | e.SiteRevoked():
            found = {"presence": Presence.LEFT, "left_at": picture.version, "trouble": happened.text}
        case e.SiteLost():
            found = {"presence": Presence.LOST, "left_at": picture.version, "trouble": happened.text}
        case e.SiteDeclined():
            found = {"presence": Presence.DECLINED, "trouble": happened.text}
        case e.TrainerTrouble() | e.ScoreFailed() | e.SiteResync() | e.SiteAuditDiffers():
            found = {"trouble": happened.text}
    return _with(picture, happened.site, **found) if found else picture


def _here(picture: Picture, site: str) -> Picture:
    was = picture.site(site)
    if was.presence is Presence.HERE:
        return picture
    if was.left_at is not None:
        return _with(picture, site, presence=Presence.HERE, back_at=picture.version, updates_since_back=0, trouble="")
    joined_at = picture.version if picture.running else 0
    return _with(picture, site, presence=Presence.HERE, joined_at=joined_at, trouble="")


def _with(picture: Picture, site: str, **changes: Any) -> Picture:
    return replace(picture, sites={**picture.sites, site: replace(picture.site(site), **changes)})
