"""How long an update takes to become a new version at the other site: real daemons, private node, trivial training.

Two sites train the task `synthetic` (random fp32 params, random deltas: nothing compresses well), buffer of 1, once
with the codes that a job has by default and once with exact fp32 both ways. A sample runs from the first byte that a
site publishes of its update until the other site holds the version that came of it, complete and verified; both ends
are log lines of the daemons, which share this machine's clock. Training takes a while (`TRAIN_S`), as on a GPU it
would, so that one update is measured and not a jam; the row `updates per second` is the other case, training that
takes no time at all.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from fedbus.bench.figures import MIB, Logged, Row, lines_of, peak_bytes, row, time_of
from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.core.spec.training import TrainingSpec
from fedbus.local.federation import LocalFederation, wait_until

SITES = ("site-a", "site-b")
CODES = {"default codes": None, "exact fp32": {"up": "fp32", "down": "fp32"}}
GOALS_S = {1: 0.05, 50: 0.5}
TRAIN_S = {1: 0.15, 50: 1.5}
LIMIT = timedelta(minutes=4)


def rows(*, sizes_mib: list[int], updates: int) -> list[Row]:
    """Measure each model size; rows of case, value, unit, goal, met."""
    found: list[Row] = []
    for mib in sizes_mib:
        for codes in CODES:
            found += _measure(mib, codes, updates)
        found += _measure_rate(mib, updates)
    return found


def _measure(mib: int, codes: str, updates: int) -> Iterator[Row]:
    train_s = TRAIN_S.get(mib, 0.03 * mib)
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder:
        with two_sites(Path(folder)) as federation:
            run_job(federation, mib, codec=CODES[codes], versions=updates + 2, train_s=train_s)
            peaks = _peaks(federation)
        samples = settled_times(federation)
        sent = [e["body_bytes"] for e in lines_of(federation.daemons[0], "update-folded")]
        down = [e["body_bytes"] for e in lines_of(federation.daemons[0], "version-committed")]
    case, goal = f"{mib} MiB, {codes}", GOALS_S.get(mib)
    median = statistics.median(samples)
    yield row(f"{case}: update published → version at the other site, median of {len(samples)}", median, "s", goal)
    yield row(f"{case}: the same, worst", max(samples), "s")
    yield row(f"{case}: bytes of an update", statistics.median(sent), "B")
    yield row(f"{case}: bytes of a version", statistics.median(down), "B")
    for name, peak in peaks.items():
        yield row(f"{case}: peak memory of {name}", peak / MIB, "MiB")


def _measure_rate(mib: int, updates: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder, two_sites(Path(folder)) as federation:
        run_job(federation, mib, codec=None, versions=updates, train_s=0.0)
        commits = [time_of(e) for e in lines_of(federation.daemons[0], "version-committed")]
    rate = (len(commits) - 1) / (commits[-1] - commits[0]) if len(commits) > 1 else 0.0
    yield row(f"{mib} MiB: updates per second, 2 sites that train in no time", rate, "1/s")


def two_sites(folder: Path) -> LocalFederation:
    """A federation with a broker of its own and data for both SITES, which is none."""
    for site in SITES:
        (folder / "data" / site).mkdir(parents=True)
        (folder / "data" / site / "none").touch()
    return LocalFederation(folder, sites=SITES)


def run_job(
    federation: LocalFederation, mib: int, *, codec: Mapping[str, str] | None, versions: int, train_s: float
) -> None:
    """Start the daemons and train to the end."""
    job = start_job(federation, mib, codec=codec, versions=versions, train_s=train_s)
    federation.daemons[0].wait_for("job-ended", within=LIMIT, job=job, state="finished")


def start_job(
    federation: LocalFederation,
    mib: int,
    *,
    codec: Mapping[str, str] | None,
    versions: int,
    train_s: float,
    **aggregator: object,
) -> str:
    """Start the daemons, the aggregator with these settings, and submit a job; returns its id."""
    spec = TrainingSpec.parse(
        ({"codec": codec} if codec else {})
        | {
            "name": f"transport-{mib}-mib",
            "task": "synthetic",
            "task_config": {"numel": mib * MIB // 4, "step_s": train_s},
            "min_sites": len(SITES),
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
            "strategy": {"kind": "buffered", "buffer": 1},
            "stop": {"versions": versions},
        }
    )
    federation.start_aggregator(**aggregator).wait_for("aggregator-ready")
    sites = [federation.start_site(s, federation.folder / "data" / s, status_interval_s=2) for s in SITES]
    for site in sites:
        site.wait_for("site-ready")

    async def submit() -> str:
        async with Client(SubmitterSettings.load(broker_url=federation.url("submitter"))) as client:
            return await client.submit(spec)

    return asyncio.run(submit())


def settled_times(federation: LocalFederation) -> list[float]:
    """`transfer_times` without the first two, which pay for files and memory that are new."""
    return list(transfer_times(federation.daemons[0], federation.daemons[1:]))[2:]


def transfer_times(aggregator: Logged, sites: Sequence[Logged]) -> Iterator[float]:
    """Seconds from publishing an update to holding its version at the other site, for every version, in order."""
    began = {e["update"]: (site.name, time_of(e)) for site in sites for e in lines_of(site, "update-publishing")}
    held = {(site.name, e["version"]): time_of(e) for site in sites for e in lines_of(site, "version-held")}
    for commit in lines_of(aggregator, "version-committed"):
        (update,) = commit["updates"]
        sender, start = began[update]
        for site in sites:
            end = held.get((site.name, commit["version"]))
            if site.name != sender and end is not None:
                yield end - start


def _peaks(federation: LocalFederation) -> dict[str, float]:
    """Peak resident memory in bytes, by process."""
    aggregator, *sites = federation.daemons
    processes = {"aggregator": aggregator.pid, "RabbitMQ": federation.node.status().pid}
    for site in sites:
        (trainer,) = wait_until(site.trainers, within=timedelta(seconds=5), what=f"the trainer of {site.name}")
        processes |= {f"daemon {site.name}": site.pid, f"trainer {site.name}": trainer.pid}
    return {name: peak_bytes(pid) for name, pid in processes.items() if pid is not None}
