"""Many sites against one aggregator for minutes: what it folds per second, how soon, and what that costs.

Real site daemons with stub trainers (see `stub_sites`), in a few processes, on a private node; one job with the codes
that a job has by default, whose buffer is a fifth of the sites. The sites' files lie in memory where the machine allows
it: hundreds of sites do not share one disk with their aggregator. A latency runs from the first byte that a site
publishes of an update until it is folded. Figures that say "steady" leave out the start, when all sites come at once.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fedbus.bench import jobs
from fedbus.bench.chaos.evidence import ledger_record
from fedbus.bench.figures import MIB, Row, lines_of, peak_bytes, row, time_of
from fedbus.bench.stub_sites import PreparedUpdate, StubPlan
from fedbus.broker.process import signals_held
from fedbus.bus import topology as t
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import FedbusError
from fedbus.local.federation import Daemon, LocalFederation

SAMPLE_S = 5.0
WARM_UP_S = 30.0
LIMIT = timedelta(minutes=5)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MEMORY = Path("/dev/shm")  # noqa: S108 only the sites' files, in a folder of our own


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPlan:
    """How many sites in how many processes, for how long; `train_s` is the mean of their trainings."""

    sites: int = 200
    seconds: float = 300.0
    processes: int = 4
    mib: float = 1.0
    train_s: float = 5.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"site-{n:03}" for n in range(self.sites))

    @property
    def numel(self) -> int:
        return int(self.mib * MIB) // 4

    @property
    def warm_up_s(self) -> float:
        return min(WARM_UP_S, self.seconds / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at all processes: resident bytes and seconds of CPU so far by group, ready messages by queue."""

    at: float
    rss_bytes: Mapping[str, int]
    cpu_s: Mapping[str, float]
    waiting: Mapping[str, int]
    load: float


def rows(plan: SoakPlan) -> list[Row]:
    """Run the soak; rows of case, value, unit, goal, met."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedbus-bench-")))
        in_memory = MEMORY if MEMORY.is_dir() else None
        sites_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedbus-bench-", dir=in_memory)))
        with LocalFederation(folder, sites=plan.names) as federation:
            samples = run(plan, federation, sites_folder)
            peak = peak_bytes(federation.daemons[0].pid)
        return list(figures(plan, federation, samples, peak))


# ------------------------------------------------------------------ the run


def run(plan: SoakPlan, federation: LocalFederation, sites_folder: Path) -> list[Sample]:
    """Start everything, run the job to its end and look at it every SAMPLE_S."""
    update = _prepare(plan, sites_folder)
    federation.start_aggregator().wait_for("aggregator-ready")
    stubs = list(_start_stubs(plan, federation, sites_folder, update))
    job = jobs.submit(federation, _spec(plan))
    return list(_watch(plan, federation, stubs, job))


def _prepare(plan: SoakPlan, folder: Path) -> PreparedUpdate:
    """Initial params, and the one delta that all sites send."""
    import torch

    from fedbus.tensors.codec import encode
    from fedbus.training.frames_file import write_frames

    numel, draw = plan.numel, torch.Generator().manual_seed(0)
    layout = Layout.of([TensorSpec(name="w", shape=(numel,), dtype="float32")])
    params = torch.empty(numel).uniform_(-1, 1, generator=draw)
    delta = torch.empty(numel).uniform_(-1e-3, 1e-3, generator=draw)
    initial, frames = folder / "initial.frames", folder / "update.frames"
    return PreparedUpdate(
        frames=str(frames),
        frame_sizes=write_frames(frames, encode(delta, layout, Code.INT8, seed=0)),
        initial=str(initial),
        initial_sizes=write_frames(initial, encode(params, layout, Code.FP32, seed=0)),
        numel=numel,
    )


def _start_stubs(plan: SoakPlan, federation: LocalFederation, folder: Path, update: PreparedUpdate) -> Iterator[Daemon]:
    for number in range(plan.processes):
        name = f"stub-{number}"
        names = plan.names[number :: plan.processes]
        stub = StubPlan(
            urls={site: federation.url(site) for site in names},
            folder=str(folder),
            update=update,
            train_s=plan.train_s,
        )
        path = federation.folder / f"{name}.json"
        stub.write(path)
        command = ["fedbus.bench.stub_sites", str(path)]
        with signals_held():
            daemon = Daemon(name, command, env={}, log=federation.folder / "logs" / f"{name}.log")
            federation.daemons.append(daemon)
        yield daemon


def _spec(plan: SoakPlan) -> dict[str, object]:
    return {
        "name": "soak",
        "task": "synthetic",
        "task_config": {"numel": plan.numel},
        "min_sites": plan.sites,
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
        "strategy": {"kind": "buffered", "buffer": max(1, plan.sites // 5)},
        "stop": {"wall_time_s": plan.seconds},
    }


def _watch(plan: SoakPlan, federation: LocalFederation, stubs: list[Daemon], job: str) -> Iterator[Sample]:
    aggregator = federation.daemons[0]
    deadline = time.monotonic() + plan.seconds + LIMIT.total_seconds()
    groups = {"aggregator": [aggregator.pid], "sites": [stub.pid for stub in stubs]}
    if (broker := federation.node.status().pid) is not None:
        groups["RabbitMQ"] = [broker]
    updates = t.updates_queue(job)
    waiting = {updates: 0}
    while not lines_of(aggregator, "job-ended") or updates in waiting:  # the queue goes last: see `closing`
        if time.monotonic() > deadline or not all(d.alive for d in federation.daemons):
            words = "\n".join(d.last_words() for d in federation.daemons if not d.alive) or aggregator.last_words()
            raise FedbusError(f"the soak did not come to its end:\n{words}")
        waiting = jobs.waiting(federation, t.SITES, updates)
        yield _sample(groups, waiting)
        time.sleep(min(SAMPLE_S, plan.seconds / 4))


def _sample(groups: Mapping[str, list[int]], waiting: Mapping[str, int]) -> Sample:
    stats = {group: [_stat(pid) for pid in pids] for group, pids in groups.items()}
    return Sample(
        at=time.time(),
        cpu_s={group: sum(cpu_s for cpu_s, _ in found) for group, found in stats.items()},
        rss_bytes={group: sum(rss for _, rss in found) for group, found in stats.items()},
        waiting=waiting,
        load=os.getloadavg()[0],
    )


def _stat(pid: int) -> tuple[float, int]:
    """Seconds of CPU and resident bytes of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S, int(fields[21]) * PAGE_BYTES


# ------------------------------------------------------------------ what came of it


def figures(plan: SoakPlan, federation: LocalFederation, samples: list[Sample], peak: float) -> Iterator[Row]:
    """Rows of one run."""
    aggregator, *stubs = federation.daemons
    running = lines_of(aggregator, "job-running")[0]
    steady = time_of(running) + plan.warm_up_s, time_of(running) + plan.seconds
    folds = {e["update"]: time_of(e) for e in lines_of(aggregator, "update-folded")}
    folded = sum(steady[0] <= at < steady[1] for at in folds.values())
    case = f"{plan.sites} sites, {plan.mib:g} MiB, trainings of {plan.train_s:g} s"
    yield row(f"{case}: updates folded per second, steady", folded / (steady[1] - steady[0]), "1/s")
    yield from _latencies(case, stubs, folds, steady)
    yield row(f"{case}: versions committed", len(lines_of(aggregator, "version-committed")), "")
    looks = [s for s in samples if steady[0] <= s.at <= steady[1]] or samples[-1:]
    yield from _memory(case, looks, peak)
    yield from _cpu(case, looks, folds.values())
    for queue in (t.SITES, t.updates_queue(running["job"])):
        yield row(f"{case}: most messages ready in {queue}", max(s.waiting.get(queue, 0) for s in samples), "")
    yield row(f"{case}: load average of the machine, highest", max(s.load for s in samples), "")
    yield row(f"{case}: sites that lived and were lost", len(lines_of(aggregator, "site-lost")), "", 0)
    confirmed = {e["update"] for stub in stubs for e in lines_of(stub, "update-published")}
    yield row(f"{case}: updates confirmed to their sites", len(confirmed), "")
    lost = confirmed - ledger_record(federation.folder / "aggregator", running["job"]).outcomes.keys()
    yield row(f"{case}: confirmed and neither folded nor refused", len(lost), "", 0)


def _latencies(
    case: str, stubs: list[Daemon], folds: Mapping[str, float], steady: tuple[float, float]
) -> Iterator[Row]:
    began: dict[str, float] = {}
    for line in (line for stub in stubs for line in lines_of(stub, "update-publishing")):
        began.setdefault(line["update"], time_of(line))  # it may be sent again
    taken = sorted(at - began[u] for u, at in folds.items() if u in began and steady[0] <= at < steady[1])
    if len(taken) > 1:
        yield row(f"{case}: update published → folded, median of {len(taken)}", statistics.median(taken), "s")
        yield row(f"{case}: the same, 95th percentile", statistics.quantiles(taken, n=20)[-1], "s")
        yield row(f"{case}: the same, worst", taken[-1], "s")


def _memory(case: str, looks: list[Sample], peak: float) -> Iterator[Row]:
    for group in looks[0].rss_bytes:
        yield row(f"{case}: memory of {group}, start", looks[0].rss_bytes[group] / MIB, "MiB")
        yield row(f"{case}: memory of {group}, end", looks[-1].rss_bytes[group] / MIB, "MiB")
    yield row(f"{case}: peak memory of aggregator", peak / MIB, "MiB")


def _cpu(case: str, looks: list[Sample], folded_at: Iterable[float]) -> Iterator[Row]:
    first, last = looks[0], looks[-1]
    folded = sum(first.at <= at < last.at for at in folded_at)
    for group in first.cpu_s if folded else ():
        cpu_s = last.cpu_s[group] - first.cpu_s[group]
        yield row(f"{case}: cores that {group} kept busy", cpu_s / (last.at - first.at), "")
        yield row(f"{case}: CPU of {group} per update folded", 1000 * cpu_s / folded, "ms")
