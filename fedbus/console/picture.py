"""The picture of a job: what its events come to, for whoever watches. `Picture.take(event)` is all there is to it.

An event that this release does not know, that lacks a fact it needs or that is of another job leaves the picture as it
is. Sentences for people stand in the events; a picture holds states and numbers, and the one sentence that counts now.
An event costs the same however many there were before it and however many sites there are, and what a picture keeps
is bounded, see `kept`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fedbus.console.curve import Curve
from fedbus.console.kept import Contribution, Point, Said, Tally, unseen
from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event, JobState

MOST_SAID = 500
MOST_NEWEST = 64
MOST_BUFFERED = 4_096
MOST_SITE_POINTS = 500
MOST_STALENESS = 64
"""Updates that are staler are counted as so stale in the histogram."""


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
    update_bytes: of all its updates that were folded. num_examples: that it trained on last. influence, share: as
    events said them last, see `SiteInfluence`; answers know them better. updated_at: its last update, since the epoch.
    """

    presence: Presence = Presence.UNKNOWN
    joined_at: int | None = None
    left_at: int | None = None
    back_at: int | None = None
    updates: int = 0
    refused: int = 0
    update_bytes: int = 0
    num_examples: int | None = None
    updated_at: float | None = None
    staleness_sum: int = 0
    updates_since_back: int = 0
    influence: float | None = None
    share: float | None = None
    scored_version: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""

    @property
    def mean_staleness(self) -> float:
        """0 before the first update."""
        return self.staleness_sum / self.updates if self.updates else 0.0


_NOTHING_KNOWN = SitePicture()


@dataclass(slots=True, kw_only=True)
class Picture:
    """One job; "" until its submission was seen. Times are seconds since the epoch, of the aggregator's clock.

    state: a `JobState`, or what a later release calls it. says: why it waits, while it does, or how it ended.
    buffer: by id, updates that are part of no version yet. version_bytes: what was published of versions, in bytes.
    newest_versions: the last of them, with whom they are from. means: of the sites' newest scores, of each version when
    it was scored last. versions: of each version its updates, their mean staleness and the bytes up and down until
    then. scores, training: by site, what it measured of versions, and what its training said at its updates.
    whole: whether its submission was seen. changes: events that were taken in. Two pictures are compared without their
    curves.
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
    sites: dict[str, SitePicture] = field(default_factory=dict)
    buffer: dict[str, Contribution] = field(default_factory=dict)
    newest_versions: deque[Point] = field(default_factory=lambda: deque(maxlen=MOST_NEWEST))
    means: Curve = field(default_factory=Curve, compare=False)
    versions: Curve = field(default_factory=Curve, compare=False)
    scores: dict[str, Curve] = field(default_factory=dict, compare=False)
    training: dict[str, Curve] = field(default_factory=dict, compare=False)
    staleness: list[int] = field(default_factory=list)
    refusals: Tally = field(default_factory=Tally)
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=MOST_SAID))
    began_at: float | None = None
    last_version_at: float | None = None
    ended: bool = False
    result: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    changes: int = 0

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

    def versions_per_min(self, now: float) -> float:
        """Over the last versions until `now`, or until the last one where the job has ended; 0 before the second."""
        times = [point.at for point in self.newest_versions]
        if len(times) < 2:
            return 0.0
        until = times[-1] if self.ended else max(now, times[-1])
        return 60.0 * (len(times) - 1) / max(until - times[0], 1e-3)

    def take(self, event: Event) -> None:
        """Take in what has happened."""
        if self.job and event.job != self.job:
            return
        happened = e.event_of(event)
        if isinstance(happened, e.Unknown):
            return
        self.changes += 1
        self.said.append(Said.of(event, version=self.version))
        match happened:
            case e.UpdateFolded():
                self._take_folded(happened, event.at)
            case e.UpdateRefused(site=site):
                self.refused += 1
                self.refusals.add(happened.reason)
                self._change(site, refused=self.site(site).refused + 1)
            case e.VersionCommitted():
                self._take_version(happened, event.at)
            case e.VersionScored():
                self._take_scores(happened, event.at)
            case e.RuleChosen(rule=rule):
                self.rule = rule
            case e.JobSubmitted():
                self.job, self.whole = event.job, True
                self.state = self.state or str(JobState.SUBMITTED)
            case _:
                self._take_site(happened)
                self._take_job(happened, event.at)

    def _take_job(self, happened: e.Happened, at: float) -> None:
        match happened:
            case e.JobWaiting():
                self.says = happened.text
                if self.state in ("", JobState.SUBMITTED):
                    self.state = str(JobState.WAITING)
            case e.JobPaused() | e.JobTrouble():
                self.says = happened.text
            case e.JobRunning():
                self.says, self.state, self.began_at = "", str(JobState.RUNNING), at
            case e.JobContinues():
                self.says, self.state = happened.text, self.state or str(JobState.RUNNING)
            case e.JobResumed():
                self.says = ""
            case e.JobFinishing():
                self.says, self.state = happened.text, str(JobState.FINISHING)
            case e.JobEnded(state=state, result=result):
                self.says, self.state, self.ended, self.result = happened.text, state, True, result

    def _take_folded(self, happened: e.UpdateFolded, at: float) -> None:
        site, was = happened.site, self.site(happened.site)
        self._change(
            site,
            updates=was.updates + 1,
            update_bytes=was.update_bytes + happened.body_bytes,
            num_examples=happened.num_examples,
            updated_at=at,
            staleness_sum=was.staleness_sum + happened.staleness,
            updates_since_back=was.updates_since_back + (was.back_at is not None),
        )
        self.updates += 1
        self.update_bytes += happened.body_bytes
        self._count_staleness(happened.staleness)
        if happened.metrics:
            self.training.setdefault(site, Curve(MOST_SITE_POINTS)).put(
                self.version, at, happened.metrics, stamp=self.changes
            )
        if len(self.buffer) >= MOST_BUFFERED:
            del self.buffer[next(iter(self.buffer))]
        self.buffer[happened.update] = Contribution(update=happened.update, site=site, staleness=happened.staleness)

    def _count_staleness(self, staleness: int) -> None:
        counted = min(max(0, staleness), MOST_STALENESS)
        self.staleness += [0] * (counted + 1 - len(self.staleness))
        self.staleness[counted] += 1

    def _take_version(self, happened: e.VersionCommitted, at: float) -> None:
        made = tuple(self._out_of_buffer(update) for update in happened.updates)
        self.version, self.last_version_at, self.says = happened.version, at, ""
        self.version_bytes += happened.body_bytes
        self.newest_versions.append(Point(version=happened.version, at=at, contributions=made))
        of_version = {"updates": float(len(made)), "up": float(self.update_bytes), "down": float(self.version_bytes)}
        if made:
            of_version["staleness"] = sum(one.staleness for one in made) / len(made)
        self.versions.put(happened.version, at, of_version, stamp=self.changes)

    def _out_of_buffer(self, update: str) -> Contribution:
        return self.buffer.pop(update) if update in self.buffer else unseen(update)

    def _take_scores(self, happened: e.VersionScored, at: float) -> None:
        was = self.site(happened.site)
        curve = self.scores.setdefault(happened.site, Curve(MOST_SITE_POINTS))
        curve.put(happened.version, at, happened.metrics, stamp=self.changes)
        if was.scored_version is not None and happened.version < was.scored_version:
            return
        metrics = {**was.metrics, **happened.metrics}
        self._change(happened.site, scored_version=happened.version, metrics=metrics)
        self.means.put(happened.version, at, happened.means, stamp=self.changes)

    def _take_site(self, happened: e.Happened) -> None:
        site = happened.site
        match happened:
            case e.SiteJoined() | e.SiteReturned() | e.SiteAccepted():
                self._take_arrival(site)
            case e.SiteLeft() | e.SiteRevoked():
                self._change(site, presence=Presence.LEFT, left_at=self.version, trouble=happened.text)
            case e.SiteLost():
                self._change(site, presence=Presence.LOST, left_at=self.version, trouble=happened.text)
            case e.SiteDeclined():
                self._change(site, presence=Presence.DECLINED, trouble=happened.text)
            case e.TrainerTrouble() | e.ScoreFailed() | e.SiteResync() | e.SiteAuditDiffers():
                self._change(site, trouble=happened.text)
            case e.SiteInfluence(influence=influence, share=share):
                self._change(site, influence=influence, share=share)

    def _take_arrival(self, site: str) -> None:
        was = self.site(site)
        if was.presence is Presence.HERE:
            return
        if was.left_at is not None:
            self._change(site, presence=Presence.HERE, back_at=self.version, updates_since_back=0, trouble="")
        else:
            joined_at = self.version if self.running else 0
            self._change(site, presence=Presence.HERE, joined_at=joined_at, trouble="")

    def _change(self, site: str, **changes: Any) -> None:
        self.sites[site] = replace(self.site(site), **changes)
