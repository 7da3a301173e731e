"""How soon a job goes on after its aggregator was killed: SIGKILL, start at once, first update folded.

Two sites train `synthetic` params with the default codes and a buffer of 1. A sample runs from the start of the new
process to its first fold; in it are the start of Python and torch, the newest checkpoint, the replay of up to
`checkpoint_interval_s` of facts, the connections, and the decision on the update.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from fedbus.bench.figures import Row, row, time_of
from fedbus.bench.transport import start_job, two_sites
from fedbus.local.federation import LocalFederation

GOALS_S = {50: 5.0}
TRAIN_S = 0.3
VERSIONS_BETWEEN = 6
ENDLESS = 100_000
SOON = timedelta(seconds=90)


def rows(*, mib: int, kills: int) -> list[Row]:
    """Kill the aggregator of one job so many times; rows of case, value, unit, goal, met."""
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder, two_sites(Path(folder)) as federation:
        start_job(federation, mib, codec=None, versions=ENDLESS, train_s=TRAIN_S)
        samples = list(_kill_and_start(federation, kills))
    goal = GOALS_S.get(mib)
    ready = statistics.median(s[0] for s in samples)
    folds = [s[1] for s in samples]
    what = f"{mib} MiB: aggregator started after SIGKILL →"
    return [
        row(f"{what} ready, median of {len(samples)}", ready, "s"),
        row(f"{what} first new fold, median of {len(samples)}", statistics.median(folds), "s", goal),
        row(f"{what} first new fold, worst", max(folds), "s", goal),
    ]


def _kill_and_start(federation: LocalFederation, kills: int) -> Iterator[tuple[float, float]]:
    """Seconds from the start of each new process until it is ready, and until it has folded."""
    running, version = federation.daemons[0], 0
    for _ in range(kills):
        version += VERSIONS_BETWEEN
        running.wait_for("version-committed", within=SOON, version=version)
        running.stop(timedelta(0))
        began = time.time()
        running = federation.start_aggregator()
        ready = time_of(running.wait_for("aggregator-ready", within=SOON)) - began
        yield ready, time_of(running.wait_for("update-folded", within=SOON)) - began
        version = running.wait_for("version-committed", within=SOON)["version"]
