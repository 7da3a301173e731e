"""What has happened in a demo so far, told from the aggregator's events.

What lives here: counting, and one sentence per thing worth telling. What may not: processes, the bus, the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedbus.core.protocol import events
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.answers import JobDetail
from fedbus.core.protocol.messages import Event, UpdateId
from fedbus.demo.job import Cohort
from fedbus.runtime.printable import printable


@dataclass(slots=True, kw_only=True)
class SiteStory:
    """One hospital. `auc` is that of the newest version it scored on its own test patients."""

    cohort: Cohort
    state: str = "not yet"
    does: str = ""
    updates: int = 0
    refused: int = 0
    staleness_sum: int = 0
    auc: float | None = None
    joined_at: int | None = None
    left_at: int | None = None
    back_at: int | None = None
    updates_since_back: int = 0

    @property
    def mean_staleness(self) -> float:
        """0 before the first update."""
        return self.staleness_sum / self.updates if self.updates else 0.0


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
        self.sites = {name: SiteStory(cohort=cohort) for name, cohort in cohorts.items()}
        self.versions = versions
        self.job = ""
        self.version = 0
        self.updates = 0
        self.says = "starting"
        self.broker = self.aggregator = "not yet"
        self.update_bytes = self.version_bytes = 0
        self.result: Mapping[str, Any] | None = None
        self.ended: str | None = None
        self.sentences: list[tuple[float, str]] = []
        self._staleness: dict[str, int] = {}
        self._running_since: float | None = None
        self._training_s = 0.0
        self._tell, self._clock = tell, clock
        self._began = clock()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return self._clock() - self._began

    @property
    def training_s(self) -> float:
        """From version 0 to the last version."""
        return self._training_s

    @property
    def running(self) -> bool:
        return self._running_since is not None and self.ended is None

    def say(self, text: str) -> None:
        """Add a sentence."""
        text = printable(text)
        self.sentences.append((self.seconds, text))
        self._tell(self.seconds, text)

    def look(self, detail: JobDetail) -> None:
        """Take in what the aggregator answers about the job: why it waits, what every site does."""
        self.says = printable(detail.says).partition(";")[0]
        for name, found in detail.sites.items():
            if name in self.sites and self.sites[name].state == "here" and found.activity:
                version = found.version
                on_version = found.activity == Activity.TRAINING and version is not None and version >= 0
                self.sites[name].does = f"training on version {version}" if on_version else printable(found.activity)

    def take(self, event: Event) -> None:
        """Take in one event."""
        site = self.sites.get(event.site)
        match event.kind:
            case events.UPDATE_FOLDED if site:
                self._folded(site, event.facts)
            case events.VERSION_COMMITTED:
                self._committed(event.facts)
            case events.VERSION_SCORED if site:
                site.auc = event.facts["metrics"].get("auc", site.auc)
            case events.SITE_JOINED | events.SITE_RETURNED | events.SITE_ACCEPTED if site:
                self._is_here(event.site, site)
            case events.SITE_LEFT | events.SITE_LOST if site:
                self._is_gone(event, site)
            case events.JOB_SUBMITTED:
                self.job = event.job
                self.say(f"job {event.job}: {event.text}")
            case events.JOB_RUNNING:
                self._running_since = self._clock()
                self.say(event.text)
            case events.JOB_ENDED:
                self.ended = str(event.facts.get("state"))
                self.result = event.facts.get("result") or {}
                self.say(event.text)
            case _:
                self._other(event, site)

    def _folded(self, site: SiteStory, facts: Mapping[str, Any]) -> None:
        self.updates += 1
        site.updates += 1
        site.updates_since_back += site.back_at is not None
        site.staleness_sum += facts["staleness"]
        self.update_bytes += facts["body_bytes"]
        self._staleness[facts["update"]] = facts["staleness"]

    def _committed(self, facts: Mapping[str, Any]) -> None:
        self.version = facts["version"]
        self.version_bytes += facts["body_bytes"]
        if self._running_since is not None:
            self._training_s = self._clock() - self._running_since
        parts = [f"{UpdateId.parse(u).site} (staleness {self._staleness.pop(u, 0)})" for u in facts["updates"]]
        self.say(f"version {self.version} from {' and '.join(parts)}")

    def _is_here(self, name: str, site: SiteStory) -> None:
        if site.state == "here":
            return
        if site.left_at is not None:
            site.back_at = self.version
            self.say(f"{name} is back, at version {self.version}")
        elif self.running:
            site.joined_at = self.version
            self.say(f"{name} joins while the others train, at version {self.version}")
        else:
            site.joined_at = 0
            self.say(f"{name} joins")
        site.state, site.does = "here", "getting ready"

    def _is_gone(self, event: Event, site: SiteStory) -> None:
        lost = event.kind == events.SITE_LOST
        site.state, site.does, site.left_at = ("lost" if lost else "left"), "", self.version
        self.say(f"{event.text}; nobody waits for it" if lost else f"{event.site} leaves at version {self.version}")

    def _other(self, event: Event, site: SiteStory | None) -> None:
        if event.kind == events.UPDATE_REFUSED and site:
            site.refused += 1
        self.say(event.text)
