"""What crash-safety costs: the same transport with it and without it, in one run, turn by turn.

    with      state folder on a disk, a checkpoint at most every 5 s: as in production
    without   state folder in memory (`/dev/shm`), where fsync does nothing and nothing survives; no checkpoint but the
              first and the last

The broker writes to its disk in both: its durability is RabbitMQ's own.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedbus.bench.figures import Row, row
from fedbus.bench.transport import CODES, LIMIT, TRAIN_S, settled_times, start_job, two_sites
from fedbus.errors import FedbusError

MEMORY = Path("/dev/shm")  # noqa: S108 - memory is the point
WITH, WITHOUT = "with", "without"
GOAL_RATIO = 1.3
NEVER_S = 1e9


def rows(*, sizes_mib: list[int], updates: int, turns: int) -> list[Row]:
    """Measure each model size; rows of case, value, unit, goal, met. FedbusError where there is no /dev/shm."""
    if not MEMORY.is_dir():
        raise FedbusError(f"expected a file system in memory at {MEMORY}, found none: this figure needs Linux with one")
    return [found for mib in sizes_mib for found in _compare(mib, updates, turns)]


def _compare(mib: int, updates: int, turns: int) -> Iterator[Row]:
    medians: dict[str, list[float]] = {WITH: [], WITHOUT: []}
    for turn in range(turns):
        for safety in (WITH, WITHOUT) if turn % 2 == 0 else (WITHOUT, WITH):
            medians[safety].append(statistics.median(_samples(mib, safety, updates)))
    ratios = [a / b for a, b in zip(medians[WITH], medians[WITHOUT], strict=True)]
    case = f"{mib} MiB, {next(iter(CODES))}: update published → version at the other site"
    for safety, values in medians.items():
        yield row(f"{case}, {safety} crash-safety, median of {turns} x {updates}", statistics.median(values), "s")
    yield row(f"{mib} MiB: with / without, median of {turns} pairs", statistics.median(ratios), "x", GOAL_RATIO)


def _samples(mib: int, safety: str, updates: int) -> list[float]:
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="fedbus-bench-", dir=MEMORY) as in_memory,
        two_sites(Path(folder)) as federation,
    ):
        other = {} if safety == WITH else {"state_dir": in_memory, "checkpoint_interval_s": NEVER_S}
        job = start_job(
            federation, mib, codec=None, versions=updates + 2, train_s=TRAIN_S.get(mib, 0.03 * mib), **other
        )
        federation.daemons[0].wait_for("job-ended", within=LIMIT, job=job, state="finished")
        return settled_times(federation)
