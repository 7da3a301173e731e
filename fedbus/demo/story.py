"""What has happened in a demo so far: the picture of its job, the processes, and one sentence per thing worth telling.

What lives here: what is told, and when. What may not: counting (see `console.picture`), processes, the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedbus.console.kept import Point
from fedbus.console.picture import Picture, Presence, SitePicture
from fedbus.core.protocol import events as e
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.answers import JobDetail
from fedbus.core.protocol.messages import Event
from fedbus.demo.job import Cohort
from fedbus.runtime.printable import printable

STARTING = "starting"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStory:
    """One hospital. `auc` is that of the newest version it scored on its own test patients."""

    cohort: Cohort
    seen: SitePicture
    state: str
    does: str

    @property
    def auc(self) -> float | None:
        return self.seen.metrics.get("auc")


class Story:
    """Feed it with `take`; `tell` hears every sentence at once, with its second."""

    def __init__(
        self,
        cohorts: Mapping[str, Cohort],
        *,
        versions: int,
        tell: Callable[[float, str], None] = lambda second, text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.versions = versions
        self.picture = Picture()
        self.says = STARTING
        self.broker = self.aggregator = "not yet"
        self.page = ""
        self.sentences: list[tuple[float, str]] = []
        self._cohorts = cohorts
        self._starting: set[str] = set()
        self._does: dict[str, str] = {}
        self._tell, self._clock = tell, clock
        self._began = clock()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return self._clock() - self._began

    @property
    def sites(self) -> dict[str, SiteStory]:
        """Every hospital, as it is now."""
        return {name: self._site(name, cohort) for name, cohort in self._cohorts.items()}

    def _site(self, name: str, cohort: Cohort) -> SiteStory:
        seen = self.picture.site(name)
        state = STARTING if name in self._starting else str(seen.presence)
        does = self._does.get(name, "getting ready") if state == Presence.HERE else ""
        return SiteStory(cohort=cohort, seen=seen, state=state, does=does)

    def say(self, text: str) -> None:
        """Add a sentence."""
        text = printable(text)
        self.sentences.append((self.seconds, text))
        self._tell(self.seconds, text)

    def starts(self, name: str) -> None:
        """The process of a hospital starts."""
        self._starting.add(name)
        self.say(f"{name}: the process starts")

    def look(self, detail: JobDetail) -> None:
        """Take in what the aggregator answers about the job: why it waits, what every site does."""
        self.says = printable(detail.says).partition(";")[0]
        for name, found in detail.sites.items():
            if name in self._cohorts and self.sites[name].state == Presence.HERE and found.activity:
                version = found.version
                on_version = found.activity == Activity.TRAINING and version is not None and version >= 0
                self._does[name] = f"training on version {version}" if on_version else printable(found.activity)

    def take(self, event: Event) -> None:
        """Take in one event."""
        was = self.picture.site(event.site)
        self.picture.take(event)
        match e.event_of(event):
            case e.UpdateFolded() | e.VersionScored() if event.site in self._cohorts:
                pass  # told with the version, or shown as a number
            case e.VersionCommitted() if self.picture.newest_versions:
                self._tell_version(self.picture.newest_versions[-1])
            case e.SiteJoined() | e.SiteReturned() | e.SiteAccepted() if event.site in self._cohorts:
                self._tell_arrival(event.site, was)
            case e.SiteLeft() if event.site in self._cohorts:
                self._does.pop(event.site, None)
                self.say(f"{event.site} leaves at version {self.picture.version}")
            case e.SiteLost() | e.SiteRevoked() if event.site in self._cohorts:
                self._does.pop(event.site, None)
                self.say(f"{event.text}; nobody waits for it")
            case e.JobSubmitted():
                self.say(f"job {event.job}: {event.text}")
            case _:
                self.say(event.text)

    def _tell_version(self, point: Point) -> None:
        parts = [f"{made.site} (staleness {made.staleness})" for made in point.contributions]
        self.say(f"version {point.version} from {' and '.join(parts)}")

    def _tell_arrival(self, name: str, was: SitePicture) -> None:
        self._starting.discard(name)
        if was.presence is Presence.HERE:
            return
        self._does.pop(name, None)
        if was.left_at is not None:
            self.say(f"{name} is back, at version {self.picture.version}")
        elif self.picture.running:
            self.say(f"{name} joins while the others train, at version {self.picture.version}")
        else:
            self.say(f"{name} joins")
