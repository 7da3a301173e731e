"""What a site behind a slow, lossy link achieves, and what a cut costs: real daemons and real TCP.

Two sites train the task `synthetic` with the codes that a job has by default, buffer of 2: one beside the broker, which
takes its time, and one behind the link. The line is up for `seconds`, cut for `cut_s` without a word to either side,
and up again. Nothing is lost when every update whose publish was confirmed to the far site is folded or refused.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fedbus.bench import jobs
from fedbus.bench.chaos.evidence import ledger_record
from fedbus.bench.figures import MIB, Row, lines_of, row, time_of
from fedbus.bench.slow_link.line import LineSpec
from fedbus.bench.slow_link.link import SlowLink
from fedbus.local.federation import Daemon, LocalFederation, wait_until

NEAR, FAR = "site-a", "site-b"
# Over the link there is TLS: it does not end on loopback.
ALLOWED = {
    "synthetic": (
        "task_config.numel",
        *(f"local.{key}" for key in ("steps", "batch_size", "learning_rate", "evaluate")),
    )
}
PLAIN_SAMPLES = 3
LIMIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowPlan:
    """The line and what is done with it; times in seconds. `far_train_s` is short: the site always has to send."""

    line: LineSpec
    seconds: float
    cut_s: float
    mib: float = 4
    near_train_s: float = 30.0
    far_train_s: float = 1.0
    congestion: str = "reno"
    seed: int = 0

    @property
    def numel(self) -> int:
        return int(self.mib * MIB) // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A job that was run over the link: when the line was cut and mended, and the end (seconds since the epoch)."""

    job: str
    began: float
    cut: float
    mended: float
    ended: float


def rows(plan: SlowPlan) -> list[Row]:
    """Measure; rows of case, value, unit, goal, met. NodeError when this machine cannot have such a link."""
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder,
        SlowLink(plan.line, congestion=plan.congestion, seed=plan.seed) as link,
    ):
        plain_s = statistics.median(link.plain_transfer_s(plan.numel) for _ in range(PLAIN_SAMPLES))
        with LocalFederation(Path(folder), sites=(NEAR, FAR), tls=ALLOWED, host=link.near) as federation:
            run = play(plan, federation, link)
        return list(figures(plan, federation, run, plain_s))


# ------------------------------------------------------------------ the run


def play(plan: SlowPlan, federation: LocalFederation, link: SlowLink) -> Run:
    """Run a job over the link and its cut, to its end: `seconds` before the cut, and after both directions are back."""
    aggregator, far = _start(plan, federation, link)
    job = jobs.submit(federation, _spec(plan))
    _both_directions(aggregator, far, after=0.0)
    began = time.time()
    time.sleep(plan.seconds)
    link.cut()
    cut = time.time()
    time.sleep(plan.cut_s)
    link.mend()
    mended = time.time()
    _both_directions(aggregator, far, after=mended)
    time.sleep(plan.seconds)
    ended = time.time()
    jobs.abort(federation, job, "measured")
    far.wait_for("job-ended", within=LIMIT, job=job)
    wait_until(lambda: jobs.is_over(federation, job), within=LIMIT, what=f"the very end of {job}")
    return Run(job=job, began=began, cut=cut, mended=mended, ended=ended)


def _start(plan: SlowPlan, federation: LocalFederation, link: SlowLink) -> tuple[Daemon, Daemon]:
    for site in (NEAR, FAR):
        (federation.folder / "data" / site).mkdir(parents=True)
        (federation.folder / "data" / site / "none").touch()
    data = federation.folder / "data"
    aggregator = federation.start_aggregator()
    aggregator.wait_for("aggregator-ready")
    near = federation.start_site(NEAR, data / NEAR, step_delay_s=plan.near_train_s)
    url = link.open_door(federation.url(FAR))
    with link.inside():
        far = federation.start_site(FAR, data / FAR, broker_url=url, step_delay_s=plan.far_train_s)
    for daemon in (near, far):
        daemon.wait_for("site-ready")
    return aggregator, far


def _spec(plan: SlowPlan) -> dict[str, object]:
    return {
        "name": "slow-link",
        "task": "synthetic",
        "task_config": {"numel": plan.numel},
        "min_sites": 2,
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
        "strategy": {"kind": "buffered", "buffer": 2},
        "stop": {"versions": 10**6},
    }


def _both_directions(aggregator: Daemon, far: Daemon, *, after: float) -> None:
    """Wait for the next update of the far site to be folded, and for the next version that it holds.

    They travel on connections of their own, and after a cut TCP brings back each when it next tries to.
    """
    _next_of(folded_at, aggregator, "update folded", after=after)
    _next_of(held_at, far, "version held", after=after)


def _next_of(times: Callable[[Daemon], list[float]], daemon: Daemon, what: str, *, after: float) -> None:
    def found() -> bool:
        return any(at > after for at in times(daemon))

    wait_until(found, within=LIMIT, what=f"the next {what} of {FAR}", or_else=daemon.last_words)


# ------------------------------------------------------------------ what came of it


def figures(plan: SlowPlan, federation: LocalFederation, run: Run, plain_s: float) -> Iterator[Row]:
    """Rows of one run; `plain_s` is what plain TCP took for as many bytes as an update has."""
    aggregator, _, far = federation.daemons
    line = plan.line
    case = f"{line.mbit:g} Mbit/s, {1000 * line.rtt_s:g} ms, {100 * line.loss:g} % loss, {plan.congestion}"
    sent = lines_of(far, "update-published")
    size_bytes = int(statistics.median(e["body_bytes"] for e in sent))
    yield row(f"{case}: bytes of an update", size_bytes, "B")
    yield row(f"{case}: at the line's full rate", line.ideal_s(size_bytes), "s")
    yield row(f"{case}: over plain TCP on the idle line, median of {PLAIN_SAMPLES}", plain_s, "s")
    times = [e["publish_s"] for e in sent if run.began < time_of(e) < run.cut]
    if times:
        yield row(f"{case}: update published → confirmed, median of {len(times)}", statistics.median(times), "s")
        yield row(f"{case}: the same, worst", max(times), "s")
    spans = {"before": (run.began, run.cut), "during": (run.cut, run.mended), "after": (run.mended, run.ended)}
    for words, span in spans.items():
        yield from _progress(f"{case}: {words} the cut, {span[1] - span[0]:.0f} s", aggregator, far, span)
    staleness = [e["staleness"] for e in lines_of(aggregator, "update-folded") if e["site"] == FAR]
    yield row(f"{case}: staleness of its updates, median", statistics.median(staleness), "versions")
    for what, times in (("update folded", folded_at(aggregator)), ("version held", held_at(far))):
        first = next(at for at in times if at > run.mended)
        yield row(f"{case}: end of the cut → its next {what}", first - run.mended, "s")
    confirmed = {e["update"] for e in sent}
    yield row(f"{case}: updates confirmed", len(confirmed), "")
    lost = confirmed - ledger_record(federation.folder / "aggregator", run.job).outcomes.keys()
    yield row(f"{case}: confirmed and neither folded nor refused", len(lost), "", 0)


def _progress(case: str, aggregator: Daemon, far: Daemon, span: tuple[float, float]) -> Iterator[Row]:
    def within(at: float) -> bool:
        return span[0] < at <= span[1]

    made = map(time_of, lines_of(aggregator, "version-committed"))
    yield row(f"{case}: updates of the site folded", sum(map(within, folded_at(aggregator))), "")
    yield row(f"{case}: versions made", sum(map(within, made)), "")
    yield row(f"{case}: versions held by the site", sum(map(within, held_at(far))), "")


def folded_at(aggregator: Daemon) -> list[float]:
    """When updates of the far site were folded."""
    return [time_of(e) for e in lines_of(aggregator, "update-folded") if e["site"] == FAR]


def held_at(far: Daemon) -> list[float]:
    """When the far site held versions."""
    return [time_of(e) for e in lines_of(far, "version-held")]
