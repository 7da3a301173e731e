"""From events of a training to points of curves. The same events give the same points, so a restart doubles none.

    score/<metric>/<site>            what a site measured of a version
    score/<metric>/mean              of all sites, as known when the next version is scored, or at the end
    version/<what>                   updates, publish_s, interval_s, body_bytes of a version
    site/<site>/<what>               of the site's updates in a version: updates, staleness (mean), body_bytes,
                                     train_s, and the metrics of its training (mean)

The step of a point is the version; of each name there is one point a version.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event

MOST_BUFFERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`at`: seconds since the epoch, of the aggregator's clock."""

    name: str
    version: int
    value: float
    at: float

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.version


class Curves:
    """Of one job, from its events in their order."""

    def __init__(self) -> None:
        self.ended: str | None = None
        """The state in which the job has ended; None while it has not."""
        self._folded: dict[str, e.UpdateFolded] = {}
        self._means: tuple[int, Mapping[str, float]] | None = None

    def after(self, event: Event) -> Iterator[Point]:
        """The points that an event brings; none that is not finite."""
        for name, version, value in self._of(e.event_of(event)):
            if math.isfinite(value):
                yield Point(name=name, version=version, value=float(value), at=event.at)

    def _of(self, happened: e.Happened) -> Iterator[tuple[str, int, float]]:
        match happened:
            case e.UpdateFolded():
                self._folded[happened.update] = happened
                while len(self._folded) > MOST_BUFFERED:
                    del self._folded[next(iter(self._folded))]
            case e.VersionCommitted():
                yield from self._version(happened)
            case e.VersionScored():
                yield from self._scored(happened)
            case e.JobEnded():
                yield from self._mean_of_before(None)
                self.ended = happened.state

    def _version(self, made: e.VersionCommitted) -> Iterator[tuple[str, int, float]]:
        version = made.version
        yield "version/updates", version, len(made.updates)
        yield "version/publish_s", version, made.publish_s
        yield "version/interval_s", version, made.interval_s
        yield "version/body_bytes", version, made.body_bytes
        by_site: dict[str, list[e.UpdateFolded]] = defaultdict(list)
        for update in made.updates:
            if (folded := self._folded.pop(update, None)) is not None:
                by_site[folded.site].append(folded)
        for site, of_site in by_site.items():
            for name, value in _of_site(of_site):
                yield f"site/{site}/{name}", version, value

    def _scored(self, scored: e.VersionScored) -> Iterator[tuple[str, int, float]]:
        yield from self._mean_of_before(scored.version)
        for name, value in scored.metrics.items():
            yield f"score/{name}/{scored.site}", scored.version, value
        if self._means is None or scored.version >= self._means[0]:
            self._means = scored.version, scored.means

    def _mean_of_before(self, version: int | None) -> Iterator[tuple[str, int, float]]:
        """The means of the newest scored version, once a newer one is scored or the job has ended."""
        if self._means is None or (version is not None and version <= self._means[0]):
            return
        of, means = self._means
        self._means = None
        for name, value in means.items():
            yield f"score/{name}/mean", of, value


def _of_site(folded: list[e.UpdateFolded]) -> Iterator[tuple[str, float]]:
    count = len(folded)
    yield "updates", count
    yield "staleness", sum(one.staleness for one in folded) / count
    yield "body_bytes", sum(one.body_bytes for one in folded)
    yield "train_s", sum(one.train_s for one in folded) / count
    values: dict[str, list[float]] = defaultdict(list)
    for one in folded:
        for name, value in one.metrics.items():
            values[name].append(value)
    for name, found in values.items():
        yield name, sum(found) / len(found)
