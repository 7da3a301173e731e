"""What a site behind a slow, lossy link achieves, and what a cut costs: real daemons, real TCP, a private node.

Two sites train the task `synthetic` with the codes that a job has by default, buffer of 2: one beside the broker, which
takes its time, and one behind the link. The line is up for `seconds`, cut for `cut_s` without a word to either side, and up again. Nothing is
lost when every update whose publish was confirmed to the far site is in the ledger, folded or refused.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fedbus.bench.local import Daemon, LocalFederation, wait_until
from fedbus.bench.slow_link.line import LineSpec
from fedbus.bench.slow_link.link import SlowLink
from fedbus.core.facts import Folded, Refused
from fedbus.core.jobspec import JobSpec
from fedbus.store.ledger import Ledger
from services.aggregator import history
from services.publisher.client import Client
from services.publisher.settings import PublisherSettings

MIB = 1 << 20
NEAR, FAR = "near", "far"
NEAR_TRAINS_S, FAR_TRAINS_S = 30.0, 1.0
PLAIN_SAMPLES = 3
LIMIT = timedelta(minutes=10)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """When the line was cut and mended, and when the run ended: seconds since the epoch."""

    began: float
    cut: float
    mended: float
    ended: float


def rows(
    *, spec: LineSpec, seconds: float, cut_s: float, mib: int = 4, congestion: str = "reno", seed: int = 0
) -> list[Row]:
    """Measure; rows of case, value, unit, goal, met. NodeError when this machine cannot have such a link."""
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder,
        SlowLink(spec, congestion=congestion, seed=seed) as link,
    ):
        plain_s = [link.plain_transfer_s(mib * MIB // 4) for _ in range(PLAIN_SAMPLES)]
        with federation(Path(folder)) as running:
            phases = play(running, link, mib=mib, seconds=seconds, cut_s=cut_s)
        return list(evaluate(running, phases, spec, plain_s))


def federation(folder: Path) -> LocalFederation:
    for site in (NEAR, FAR):
        (folder / "data" / site).mkdir(parents=True)
        (folder / "data" / site / "none").touch()
    return LocalFederation(folder, sites=(NEAR, FAR))


def play(running: LocalFederation, link: SlowLink, *, mib: int, seconds: float, cut_s: float) -> Phases:
    """Run a job over the link and its cut, to its end."""
    aggregator = running.start_aggregator()
    aggregator.wait_for("aggregator-ready")
    data = running.folder / "data"
    near = running.start_site(NEAR, data / NEAR, step_delay_s=NEAR_TRAINS_S)
    url = link.open_door(running.url(FAR))
    with link.inside():
        far = running.start_site(FAR, data / FAR, broker_url=url, step_delay_s=FAR_TRAINS_S)
    for site in (near, far):
        site.wait_for("site-ready")
    job = asyncio.run(_submit(running, mib))
    _next_fold(aggregator, after=0.0)
    began = time.time()
    time.sleep(seconds)
    link.cut()
    cut = time.time()
    time.sleep(cut_s)
    link.mend()
    mended = time.time()
    _next_fold(aggregator, after=mended)
    time.sleep(seconds)
    ended = time.time()
    asyncio.run(_abort(running, job))
    far.wait_for("job-ended", within=LIMIT, job=job)
    return Phases(began=began, cut=cut, mended=mended, ended=ended)


async def _submit(running: LocalFederation, mib: int) -> str:
    spec = {
        "name": "slow-link",
        "task": "synthetic",
        "task_config": {"numel": mib * MIB // 4},
        "min_sites": 2,
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
        "strategy": {"kind": "buffered", "buffer": 2},
        "stop": {"versions": 10**6},
    }
    async with Client(PublisherSettings.load(broker_url=running.url("submitter"))) as client:
        return await client.submit(JobSpec.parse(spec))


async def _abort(running: LocalFederation, job: str) -> None:
    async with Client(PublisherSettings.load(broker_url=running.url("submitter"))) as client:
        await client.abort(job, "measured")


def _next_fold(aggregator: Daemon, *, after: float) -> float:
    def found() -> float | None:
        return next((at for at in folded_at(aggregator) if at > after), None)

    return wait_until(found, within=LIMIT, what="an update of the far site folded", or_else=aggregator.last_words)


# ------------------------------------------------------------------ what the logs and the ledger say


def evaluate(running: LocalFederation, phases: Phases, spec: LineSpec, plain_s: list[float]) -> Iterator[Row]:
    """Rows of one run."""
    aggregator, _, far = running.daemons
    sent = _events(far, "update-published")
    times = [e["publish_s"] for e in sent if phases.began < time_of(e) < phases.cut]
    size_bytes = int(statistics.median(e["body_bytes"] for e in sent))
    ideal_s = spec.ideal_s(size_bytes)
    case = f"{spec.mbit:g} Mbit/s, {1000 * spec.rtt_s:g} ms, {100 * spec.loss:g} % loss"
    yield _row(f"{case}: bytes of an update", size_bytes, "B")
    yield _row(f"{case}: the line's ideal for it", ideal_s, "s")
    yield _row(f"{case}: plain TCP on the idle line, median of {len(plain_s)}", statistics.median(plain_s), "s")
    if times:
        yield _row(f"{case}: update confirmed, median of {len(times)}", statistics.median(times), "s")
        yield _row(f"{case}: the same, worst", max(times), "s")
    yield from _folds(aggregator, far, phases, case)
    confirmed = {e["update"] for e in sent}
    lost = confirmed - decided(running.folder)
    yield _row(f"{case}: updates confirmed", len(confirmed), "")
    yield _row(f"{case}: confirmed and neither folded nor refused", len(lost), "", goal=0)


def _folds(aggregator: Daemon, far: Daemon, phases: Phases, case: str) -> Iterator[Row]:
    at = folded_at(aggregator)
    spans = {
        "before the cut": (phases.began, phases.cut),
        "during the cut": (phases.cut, phases.mended),
        "after the cut": (phases.mended, phases.ended),
    }
    for words, (start, stop) in spans.items():
        folds = sum(start < t <= stop for t in at)
        held = [(time_of(e), e["version"]) for e in _events(far, "version-held") if start < time_of(e) <= stop]
        made = [e["version"] for e in _events(aggregator, "version-committed") if start < time_of(e) <= stop]
        yield _row(f"{case}: updates folded {words}, {stop - start:.0f} s", folds, "")
        yield _row(f"{case}: versions made {words}", len(made), "")
        yield _row(f"{case}: versions held by the site {words}", len(held), "")
    staleness = [e["staleness"] for e in _events(aggregator, "update-folded") if e["site"] == FAR]
    yield _row(f"{case}: staleness of its updates, median", statistics.median(staleness), "versions")
    yield _row(f"{case}: the same, worst", max(staleness), "versions")
    if phases.mended > phases.cut:
        first = next(t for t in at if t > phases.mended)
        yield _row(f"{case}: end of the cut → its next update folded", first - phases.mended, "s")


def folded_at(aggregator: Daemon) -> list[float]:
    """When updates of the far site were folded."""
    return [time_of(e) for e in _events(aggregator, "update-folded") if e["site"] == FAR]


def decided(folder: Path) -> set[str]:
    """Ids of the updates that the ledger has folded or refused."""
    with Ledger(folder / "aggregator" / "ledger.sqlite3") as ledger:
        facts = [history.from_row(row) for job in ledger.jobs() for row in ledger.facts(job.job)]
    return {str(fact.update_id) for fact in facts if isinstance(fact, Folded | Refused)}


def _events(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    return [e for e in daemon.events() if e.get("event") == event]


def time_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _row(case: str, value: float, unit: str, *, goal: float | None = None) -> Row:
    return {
        "case": case,
        "value": round(value, 3),
        "unit": unit,
        "goal": goal,
        "met": None if goal is None else value <= goal,
    }
