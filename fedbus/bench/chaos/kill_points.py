"""`fedbus chaos --kill-points`: every point of `runtime.faults` is reached on purpose and is a daemon's last moment.

One federation, one long job. Two lanes of processes go on at the same time, each process armed with one point:

    aggregator   one works and dies at its point; the next, armed with the next point, has stood by and takes over
    site         a site dies at its point and is started again, armed with the next one

The points at the end of a job are reached by a short job. At the end the long one is aborted, and both are checked.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import zip_longest
from pathlib import Path

from fedbus.bench.chaos.evidence import lines
from fedbus.bench.chaos.plan import AGGREGATOR
from fedbus.bench.chaos.proxy import Backstage
from fedbus.bench.chaos.report import Found
from fedbus.bench.chaos.run import ALLOWED, ENDS_WITHIN, SOON, Tell, ask, examine, job_spec, over, submit, workspace
from fedbus.bench.chaos.stage import Stage
from fedbus.bench.figures import Row, row, time_of
from fedbus.core.protocol import events
from fedbus.core.protocol.messages import JobState
from fedbus.errors import FedbusError
from fedbus.local.federation import Daemon, LocalFederation, wait_until
from fedbus.local.interrupts import Interrupts
from fedbus.local.provisioned import Allowed
from fedbus.runtime.faults import Point

STEADY, VICTIM = "site-a", "site-b"
PACES_S = {STEADY: 0.1, VICTIM: 0.2}
AT_THE_END = (Point.FINISHING, Point.ENDED)
# At which visit a process dies: late enough for it to have done some work. Points not named: the OFTEN-th.
OFTEN = 4
VISITS = {
    Point.SPOOLED: 12,
    Point.RECORDED: 12,
    Point.ACKED: 12,
    Point.BETWEEN_CHUNKS: 10,
    Point.BEFORE_CHECKPOINT: 2,
    Point.CHECKPOINT: 2,
    Point.CHECKPOINT_DONE: 2,
    Point.FINISHING: 1,
    Point.ENDED: 1,
    Point.SITE_VERSION: 10,
}
REACHED_WITHIN_S = 60.0
POLL_S = 0.02
_OVER = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A point, and whether a process died there.

    `went_on_s`: from the death to what the next process did first: a fold of the aggregator, an update of the site.
    """

    point: Point
    died: bool
    went_on_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All points, and what was found after the end of the long and of the short job."""

    hits: tuple[Hit, ...]
    found: tuple[Found, ...]

    @property
    def failures(self) -> list[str]:
        """What should not have been, in words."""
        unreached = [f"{hit.point} was not reached" for hit in self.hits if not hit.died]
        stuck = [f"nothing went on after {h.point}" for h in self.hits if h.died and h.went_on_s is None]
        return [*unreached, *stuck, *(sentence for found in self.found for sentence in found.sentences)]

    def rows(self) -> list[Row]:
        """As `fedbus bench` prints them."""
        return [
            *(row(f"{hit.point}: went on after", hit.went_on_s or REACHED_WITHIN_S, "s") for hit in self.hits),
            row("kill points not reached", sum(not hit.died for hit in self.hits), "", 0),
            row("kill points after which nothing went on", sum(hit.went_on_s is None for hit in self.hits), "", 0),
            *(
                row(f"{job} job: {what}", len(sentences), "", 0)
                for job, found in zip(("long", "short"), self.found, strict=True)
                for what, sentences in found.failures.items()
            ),
        ]


def run_kill_points(*, keep: Path | None, tell: Tell, kits: bool = False) -> Table:
    """Reach every point once, with `kits` in a provisioned federation. FedbusError when it cannot be started."""
    with Interrupts() as interrupts, workspace(keep, "kill-points") as (folder, forget):
        try:
            table = _run(folder, tell, ALLOWED if kits else None)
        finally:
            interrupts.shut()
        if not table.failures:
            forget()
        else:
            tell(f"logs and state are kept in {folder}")
        return table


def _run(folder: Path, tell: Tell, tls: Allowed | None) -> Table:
    sites = tuple(PACES_S)
    with Backstage() as backstage, LocalFederation(folder, sites=sites, tls=tls) as federation:
        stage = Stage(federation, backstage, PACES_S)
        lanes = _Lanes(stage, tell)
        lanes.run()
        jobs = {lanes.long_job: JobState.ABORTED, lanes.short_job: JobState.FINISHED}
        ask(federation, lambda client: client.abort(lanes.long_job, "every kill point was reached"))
        for job in jobs:
            wait_until(partial(over, federation, sites, job), within=ENDS_WITHIN, what=f"the end of {job}")
    return Table(
        hits=tuple(_hits(lanes.deaths, federation, lanes.long_job)),
        found=tuple(examine(federation, job, sites, state=state) for job, state in jobs.items()),
    )


class _Lanes:
    """Two lanes of armed processes; each lane is a generator that yields while it waits."""

    def __init__(self, stage: Stage, tell: Tell) -> None:
        self._stage = stage
        self._tell = tell
        self.long_job = ""
        self.short_job = ""
        self.deaths: dict[Point, float | None] = {}
        """When each point was somebody's last, in seconds since the epoch; None when it was not reached in time."""

    def run(self) -> None:
        """Let every process live until its point."""
        self._stage.start(STEADY)
        lanes = [self._aggregators(), self._sites()]
        while lanes:
            lanes = [lane for lane in lanes if next(lane, _OVER) is not _OVER]
            time.sleep(POLL_S)

    def _aggregators(self) -> Iterator[None]:
        points = [*(p for p in Point if not p.of_site and p not in AT_THE_END), *AT_THE_END]
        working = self._armed(AGGREGATOR, points[0])
        self.long_job = submit(self._stage.federation, job_spec("long", stop={"versions": 10**6}, min_sites=1))
        for point, after in zip_longest(points, points[1:]):
            standing_by = self._stage.start(AGGREGATOR) if after is None else self._armed(AGGREGATOR, after)
            if point is AT_THE_END[0]:
                self.short_job = submit(self._stage.federation, job_spec("short", stop={"versions": 2}, min_sites=1))
            yield from self._until_dead(working, point)
            working = standing_by
        yield from _until_logged(working, events.UpdateFolded.kind)

    def _sites(self) -> Iterator[None]:
        for point in (p for p in Point if p.of_site):
            yield from self._until_dead(self._armed(VICTIM, point), point)
        yield from _until_logged(self._stage.start(VICTIM), "update-published")

    def _armed(self, name: str, point: Point) -> Daemon:
        return self._stage.start(name, fault=f"{point}:{VISITS.get(point, OFTEN)}")

    def _until_dead(self, daemon: Daemon, point: Point) -> Iterator[None]:
        """Yield until the daemon has killed itself; when it does not in time, end it."""
        deadline = time.monotonic() + REACHED_WITHIN_S
        while daemon.exit_code is None and time.monotonic() < deadline:
            yield
        died = daemon.exit_code == -signal.SIGKILL
        self.deaths[point] = time.time() if died else None
        self._tell(f"{point}: {'died there' if died else f'not reached, exit code {daemon.exit_code}'}")
        daemon.stop(timedelta(0))


def _until_logged(daemon: Daemon, event: str) -> Iterator[None]:
    deadline = time.monotonic() + SOON.total_seconds()
    while not any(line.get("event") == event for line in daemon.events()):
        if time.monotonic() > deadline:
            raise FedbusError(f"{daemon.name}: no {event} within {SOON}; its last words:\n{daemon.last_words()}")
        yield


def _hits(deaths: Mapping[Point, float | None], federation: LocalFederation, job: str) -> Iterator[Hit]:
    """Look up in the logs when each lane went on."""
    for point, died_at in deaths.items():
        name, event = (VICTIM, "update-published") if point.of_site else (AGGREGATOR, events.UpdateFolded.kind)
        if died_at is None:
            yield Hit(point=point, died=False, went_on_s=None)
            continue
        done = lines([d for d in federation.daemons if d.name == name], job, event)
        after = [at for at in map(time_of, done) if at > died_at]
        yield Hit(point=point, died=True, went_on_s=min(after) - died_at if after else None)
