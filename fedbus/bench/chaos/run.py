"""`fedbus chaos`: one real job with real processes for each seed, done to what its schedule says, then checked.

    start     private broker → links → aggregator and four sites → submit → the job runs for a while
    play      the schedule, see `plan` and `acts`
    heal      everything is up; the job ends by its wall time, every site hears of it
    check     logs and ledger against each other, see `check`; replay of the whole job

A run that misses a goal keeps its folder. Children are in sessions of their own, so a Ctrl-C reaches this process
alone; it ends them, and the kernel does should it be killed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from fedbus.bench.chaos.acts import Player
from fedbus.bench.chaos.check import stuck
from fedbus.bench.chaos.evidence import connected_at, ledger_record, lines, replay_failures, site_record
from fedbus.bench.chaos.nodes import NODES, Nodes
from fedbus.bench.chaos.plan import AGGREGATOR, schedule
from fedbus.bench.chaos.proxy import Backstage
from fedbus.bench.chaos.report import Found, Outcome, judge
from fedbus.bench.chaos.stage import Stage, Surprise
from fedbus.bench.figures import time_of
from fedbus.console.client import Client
from fedbus.console.settings import LOGIN, SubmitterSettings
from fedbus.core.protocol import events
from fedbus.core.protocol.messages import JobState
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import FedbusError, SettingsError
from fedbus.local.federation import Daemon, LocalFederation
from fedbus.local.interrupts import Interrupts
from fedbus.local.provisioned import Allowed
from fedbus.store.spool import Bodies
from fedbus.store.state_reader import StateReader

# A pause in each training: sites differ ninefold, and kills land in training as well as between chunks.
PACES_S = {"site-a": 0.1, "site-b": 0.25, "site-c": 0.5, "site-d": 0.9}
SITES = tuple(PACES_S)
SOON = timedelta(seconds=120)  # a busy machine is no reason to give up
# A queue or stream younger than a second is lost when a RabbitMQ 3.10 node is killed.
AGE_S = 2.0
# Time for whoever waits in a back-off, and then to see that every site sends updates again: see `check.stuck`.
HEAL_S = 30.0
ENDS_WITHIN = timedelta(seconds=120)
LOOK_S = 0.5

ALLOWED: Allowed = {
    "synthetic": (
        "task_config.numel",
        *(f"local.{key}" for key in ("steps", "batch_size", "learning_rate", "evaluate")),
    )
}
Tell = Callable[[str], None]
T = TypeVar("T")


def run_seed(
    seed: int, *, within_s: float, keep: Path | None, tell: Tell, kits: bool = False, cluster: bool = False
) -> Outcome:
    """Run one seed and check it; `within_s` is how long the schedule is. Raises FedbusError when it cannot be run.

    With `kits` the federation is a provisioned one: TLS alone, everything signed and sealed. With `cluster` its broker
    has three nodes.
    """
    with Interrupts() as interrupts, workspace(keep, f"seed-{seed}") as (folder, forget):
        try:
            outcome = _run(folder, seed, within_s, tell, tls=ALLOWED if kits else None, cluster=cluster)
        finally:
            interrupts.shut()
        if outcome.found.ok:
            forget()
        else:
            tell(f"seed {seed}: logs and state are kept in {folder}")
        return outcome


def _run(folder: Path, seed: int, within_s: float, tell: Tell, *, tls: Allowed | None, cluster: bool) -> Outcome:
    deeds = schedule(seed, SITES, within_s=within_s, nodes=NODES if cluster else ())
    spec = job_spec(f"chaos-{seed}", stop={"wall_time_s": AGE_S + within_s + HEAL_S})
    with ExitStack() as stack:
        backstage = stack.enter_context(Backstage())
        nodes = Nodes(backstage) if cluster else None
        made = nodes.cluster if nodes else None
        federation = stack.enter_context(LocalFederation(folder, sites=SITES, tls=tls, cluster=made))
        stage = Stage(federation, backstage, PACES_S, nodes)
        aggregator = stage.start(AGGREGATOR)
        for site in SITES:
            stage.start(site)
        job = submit(federation, spec)
        aggregator.wait_for(events.VersionCommitted.kind, within=SOON, job=job)
        player = Player(stage, backstage, job, seed=seed, tell=tell)
        player.idle_until(time.monotonic() + AGE_S)
        player.play(deeds)
        healed_at = time.time()
        unaware = wait_for_end(stage, player, job)
    others = {"not done with the job": unaware, "sites that hang": hanging(federation, job, healed_at)}
    found = examine(federation, job, SITES, surprises=stage.surprises, others=others)
    commits = lines(aggregators(federation), job, events.VersionCommitted.kind)
    return Outcome(
        seed=seed,
        done=tuple(player.done),
        found=found,
        commits_at=tuple(map(time_of, commits)),
        resyncs=len(lines(aggregators(federation), job, events.SiteResync.kind)),
    )


def job_spec(name: str, *, stop: dict[str, Any], min_sites: int = len(SITES) - 1) -> TrainingSpec:
    """A model of 4 MiB whose updates travel in several chunks.

    min_sites holds while a job runs: with all of them the others would pause while one is killed.
    """
    return TrainingSpec.parse(
        {
            "name": name,
            "task": "synthetic",
            "task_config": {"numel": 1 << 20},
            "min_sites": min_sites,
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
            "strategy": {"kind": "calibrated", "buffer": 2},  # remembers: bodies must outlive their commit
            "max_staleness": 20,
            "chunk_bytes": 256 * 1024,
            "stop": stop,
        }
    )


def ask(federation: LocalFederation, question: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Ask the aggregator as submitter."""

    async def asking() -> T:
        settings = SubmitterSettings.load(
            broker_url=federation.url(LOGIN), kit=federation.kit(LOGIN), timeout_s=SOON.total_seconds()
        )
        async with Client(settings) as client:
            return await question(client)

    return asyncio.run(asking())


def submit(federation: LocalFederation, spec: TrainingSpec) -> str:
    """Submit a job and return its id."""
    return ask(federation, lambda client: client.submit(spec))


def still_at_it(federation: LocalFederation, sites: Sequence[str], job: str) -> list[str]:
    """Who is not done with a job, in words: it has ended, is cleared, and every site has dropped its files, or not."""
    folder = federation.folder
    spooled = Bodies(folder / "aggregator" / "spool").path(job, "any").parent
    places = {"the aggregator": spooled} | {site: folder / "sites" / site / "jobs" / job for site in sites}
    found = [f"{name} still has {path}" for name, path in places.items() if path.exists()]
    with StateReader(folder / "aggregator") as state:
        row = next(row for row in state.ledger.jobs() if row.job == job)
    said = lines(aggregators(federation), job, events.JobEnded.kind)
    return found if said and JobState(row.state).ended else [*found, f"{job} is {row.state}; end told: {bool(said)}"]


def over(federation: LocalFederation, sites: Sequence[str], job: str) -> bool:
    """Whether everybody is done with a job."""
    return not still_at_it(federation, sites, job)


def wait_for_end(stage: Stage, player: Player, job: str) -> list[str]:
    """Look after the daemons until everybody is done with the job; returns who never was, in words."""
    deadline = time.monotonic() + ENDS_WITHIN.total_seconds()
    while (left := still_at_it(stage.federation, SITES, job)) and time.monotonic() < deadline:
        player.idle_until(time.monotonic() + LOOK_S)
    return left


def hanging(federation: LocalFederation, job: str, healed_at: float) -> list[str]:
    """Sites that did not go on after all was healed, in words."""
    processes = aggregators(federation)
    over_at = min(map(time_of, lines(processes, job, events.JobFinishing.kind)), default=0.0)
    records = [site_record(site, processes_of(federation, site), job) for site in SITES]
    return stuck(records, healed_at=max(healed_at, connected_at(processes)), over_at=over_at)


def examine(
    federation: LocalFederation,
    job: str,
    sites: Sequence[str],
    *,
    surprises: Sequence[Surprise] = (),
    state: JobState = JobState.FINISHED,
    others: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Found:
    """Read what the run left and compare it; all its processes have ended."""
    state_dir = federation.folder / "aggregator"
    of_site = {site: processes_of(federation, site) for site in sites}
    sent = Counter(e["update"] for logs in of_site.values() for e in lines(logs, job, "update-publishing"))
    refused = [str(e["reason"]) for d in aggregators(federation) for e in d.events() if e["event"] == "dead-letter"]
    return judge(
        [site_record(site, logs, job) for site, logs in of_site.items()],
        ledger_record(state_dir, job),
        sent=sent,
        state=state,
        others={
            "processes that ended by themselves": [f"{s.name}, exit {s.exit_code}: {s.last_words}" for s in surprises],
            "messages refused as broken": refused,
            "replays that differ": replay_failures(state_dir, job),
            **others,
        },
    )


def processes_of(federation: LocalFederation, name: str) -> list[Daemon]:
    """All processes of a daemon, in their order."""
    return [daemon for daemon in federation.daemons if daemon.name == name]


def aggregators(federation: LocalFederation) -> list[Daemon]:
    """All processes of the aggregator."""
    return processes_of(federation, AGGREGATOR)


@contextmanager
def workspace(keep: Path | None, name: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A new folder, `keep/name` if it is given, and what says that it is of no interest any more."""
    if keep is not None:
        folder = keep.absolute() / name
        try:
            folder.mkdir(parents=True)
        except OSError as exc:
            raise SettingsError(f"--keep {keep}: {folder} cannot be made: {exc.strerror}; give a new folder") from exc
        yield folder, lambda: None
        return
    folder = Path(tempfile.mkdtemp(prefix=f"fedbus-chaos-{name}-"))
    forget = partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        yield folder, forget
    except FedbusError as exc:
        raise FedbusError(f"{exc}\nlogs and state are kept in {folder}") from exc
    except BaseException:  # a signal: the person knows
        forget()
        raise
