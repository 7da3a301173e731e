"""What the aggregator looks at when Prometheus asks: jobs, sites, disk, broker, certificates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from fedbus.aggregator.job.runner import JobRunner
from fedbus.aggregator.tools import Tools
from fedbus.bus.connection import Session
from fedbus.core.job.membership import SiteState, SiteView
from fedbus.core.protocol.messages import JobState
from fedbus.runtime import gauges
from fedbus.runtime import metrics as n
from fedbus.runtime.metrics import Sample
from fedbus.store.files import bytes_below


class Gauges:
    """Of one aggregator; `runners` gives the jobs that have not ended, `clock` is that of the leases."""

    def __init__(
        self,
        *,
        tools: Tools,
        runners: Callable[[], Mapping[str, JobRunner]],
        sessions: Sequence[Session],
        state_dir: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = tools
        self._runners = runners
        self._sessions = sessions
        self._state_dir = state_dir
        self._clock = clock

    async def look(self) -> list[Sample]:
        """Everything as it is now."""
        tools, now = self._tools, self._clock()
        return [
            *await tools.compute(self._on_disk),
            *gauges.of_daemon(
                n.Of.AGGREGATOR,
                self._sessions,
                certificate_ends=tools.post.certificate_ends,
                lists_end=tools.post.lists_end,
            ),
            *_sites(tools.membership.views(), now),
            *(sample for runner in self._runners().values() for sample in _job(runner)),
            Sample(n.DISK_FULL, float(tools.disk.full is not None)),
        ]

    def _on_disk(self) -> list[Sample]:
        states = self._tools.ledger.states()
        return [
            *(Sample(n.JOBS, states.get(str(state), 0), (str(state),)) for state in JobState),
            Sample(n.SPOOL_BYTES, bytes_below(self._state_dir / "spool")),
            gauges.disk_free(self._state_dir),
        ]


def _sites(views: Sequence[SiteView], now: float) -> Iterator[Sample]:
    count = Counter(view.state for view in views)
    for state in SiteState:
        yield Sample(n.SITES, count[state], (str(state),))
        for view in views:
            yield Sample(n.SITE_STATE, float(view.state is state), (view.name, str(state)))
    for view in views:
        if view.state is SiteState.ONLINE:
            yield Sample(n.SITE_SILENT_S, now - view.last_heard_at, (view.name,))


def _job(runner: JobRunner) -> Iterator[Sample]:
    job = (runner.job,)
    yield Sample(n.JOB_VERSION, -1 if runner.version is None else runner.version, job)
    yield Sample(n.JOB_ACTIVE, len(runner.active()), job)
    yield Sample(n.JOB_RUNNING, float(runner.life.state is JobState.RUNNING), job)
    yield Sample(n.JOB_UNDECIDED, runner.complete.count, job)
