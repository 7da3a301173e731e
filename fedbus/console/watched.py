"""What somebody who watches a job knows of it: its picture, the newest answers, and how old those are.

What lives here: taking in what comes, and words for what does not come. What may not: asking, and how it looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedbus.console.curve import Curve
from fedbus.console.look import SiteRow
from fedbus.console.picture import Picture, Presence
from fedbus.core.job.status_text import span
from fedbus.core.protocol import events as e
from fedbus.core.protocol.answers import Doing, JobDetail, SiteLine
from fedbus.core.protocol.messages import Event
from fedbus.errors import BusError, FedbusError

LOSS = "loss"
"""What tasks call the loss of their training."""
SILENT_S = 4.0
"""An answer that is older is no longer how things are."""
PRESENCE = {"online": Presence.HERE, "lost": Presence.LOST, "left": Presence.LEFT}
"""What events call the states of a site that answers name."""


@dataclass(slots=True, kw_only=True)
class Freshness:
    """When there was an answer last, on the clock of who asks, in seconds; None before the first."""

    answered_at: float | None = None
    connected: bool = True
    error: str = ""

    def answered(self, now: float) -> None:
        self.answered_at, self.connected, self.error = now, True, ""

    def failed(self, error: FedbusError) -> None:
        """A question was asked in vain. That there is no link, or no answer in time, is seen without."""
        self.error = "" if isinstance(error, BusError) else str(error)

    def trouble(self, now: float) -> str:
        """Why nothing new is heard, and how old what is shown is; empty while answers come."""
        if not self.error and self.answered_at is not None and self.connected and now - self.answered_at < SILENT_S:
            return ""
        what = "the aggregator does not answer" if self.connected else "there is no link to the broker"
        if self.error:
            what = self.error
        if self.answered_at is None:
            return f"{what}; asking again"
        return f"{what}: shown is how it was {span(now - self.answered_at)} ago, asking again"


@dataclass(slots=True, kw_only=True)
class Watched:
    """One job. losses: the mean loss of training of the updates between two versions."""

    job: str
    picture: Picture
    detail: JobDetail | None = None
    sites: Mapping[str, SiteLine] = field(default_factory=dict)
    fresh: Freshness = field(default_factory=Freshness)
    losses: Curve = field(default_factory=Curve)
    _losses_of: tuple[int, float, int] = (-1, 0.0, 0)

    def take(self, event: Event) -> None:
        """Take in one event."""
        self.picture.take(event)
        happened = e.event_of(event)
        if isinstance(happened, e.UpdateFolded) and LOSS in happened.metrics:
            version, total, count = self._losses_of
            if version != self.picture.version:
                version, total, count = self.picture.version, 0.0, 0
            self._losses_of = version, total + happened.metrics[LOSS], count + 1
            self.losses.put(version, event.at, {LOSS: self._losses_of[1] / self._losses_of[2]})

    def look(self, detail: JobDetail, sites: Sequence[SiteLine], *, now: float) -> None:
        """Take in what the aggregator has answered."""
        self.detail, self.sites = detail, {site.site: site for site in sites}
        self.fresh.answered(now)

    @property
    def state(self) -> str:
        return self.picture.state if self.picture.ended or self.detail is None else self.detail.state

    @property
    def says(self) -> str:
        """Why it waits, what it does, or how it ended."""
        return self.picture.says if self.picture.ended or self.detail is None else self.detail.says

    @property
    def version(self) -> int:
        answered = None if self.detail is None else self.detail.version
        return max(self.picture.version, answered or 0)

    @property
    def updates(self) -> int:
        answered = None if self.detail is None else self.detail.updates
        return max(self.picture.updates, answered or 0)

    @property
    def metric(self) -> str:
        """The metric that the job stops at, or else the first that its sites measure; "" when there is none."""
        stop = {} if self.detail is None else self.detail.spec.get("stop") or {}
        rules = (stop.get(name) for name in ("target", "patience")) if isinstance(stop, Mapping) else ()
        named = (rule.get("metric") for rule in rules if isinstance(rule, Mapping))
        return next((str(name) for name in named if name), next(iter(sorted(self.picture.means.columns)), ""))

    def goal(self) -> tuple[float, float, str] | None:
        """How far the job is, how far it goes at most, and what that is counted in; None when nothing says it."""
        stop = {} if self.detail is None else self.detail.spec.get("stop") or {}
        for name, done in (("versions", self.version), ("updates", self.updates)):
            most = stop.get(name) if isinstance(stop, Mapping) else None
            if isinstance(most, int) and most > 0:
                return done, most, name
        return None

    def seconds(self, now: float) -> float:
        """Since its work began, `now` being seconds since the epoch; 0 before."""
        began = self.picture.began_at or (self.detail.started_at if self.detail else None)
        if began is None:
            return 0.0
        said = self.picture.said
        last = said[-1].at if said else began
        ended = self.picture.ended or (self.detail is not None and self.detail.ended_at is not None)
        return max(0.0, (last if ended else max(now, last)) - began)

    def rows(self) -> list[SiteRow]:
        """The sites of the job by name, as events and answers have them."""
        of_job = {} if self.detail is None else self.detail.sites
        declined = (self.detail.declined if self.detail else None) or {}
        return [self._row(name) for name in sorted({*self.picture.sites, *of_job, *declined} - {e.NOBODY})]

    def _row(self, name: str) -> SiteRow:
        seen, answered = self.picture.site(name), self.detail.sites.get(name) if self.detail else None
        line = self.sites.get(name)
        presence = str(seen.presence)
        if seen.presence is Presence.UNKNOWN and answered is not None and answered.state:
            presence = str(PRESENCE.get(answered.state, answered.state))
        updates = max(seen.updates, answered.updates if answered else 0)
        mean = answered.mean_staleness if answered and answered.updates > seen.updates else seen.mean_staleness
        return SiteRow(
            name=name,
            state=presence,
            does=self._does(presence, line, seen.trouble),
            updates=updates,
            refused=max(seen.refused, answered.refused if answered else 0),
            staleness=mean if updates else None,
            metric=seen.metrics.get(self.metric),
        )

    def _does(self, presence: str, line: SiteLine | None, trouble: str) -> str:
        if self.picture.ended:
            return trouble
        if presence == Presence.HERE:
            doing = line.jobs.get(self.job) if line else None
            return doing_words(doing) if doing else trouble or "online"
        if line is not None and presence in (Presence.LOST, Presence.LEFT):
            return f"offline {span(line.since_s)}" if presence == Presence.LOST else f"left {span(line.since_s)} ago"
        return trouble


def doing_words(doing: Doing) -> str:
    """What a site does: 'training 12/40, version 3'."""
    step = f" {doing.step}/{doing.steps}" if doing.steps else ""
    version = f", version {doing.version}" if doing.version >= 0 and doing.activity in ("training", "scoring") else ""
    detail = f" ({doing.detail})" if doing.detail else ""
    return f"{doing.activity}{step}{version}{detail}"
