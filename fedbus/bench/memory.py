"""How much memory the daemons need at most, for any model, any number of sites and any backlog: real daemons, a private
node, the default codes.

    a job        sites train the task `synthetic` for VERSIONS versions; peaks of aggregator and site daemons
    a backlog    the aggregator is killed, BACKLOG updates are published meanwhile by logins without a daemon, and it
                 works them off after its restart, a version each; once by 2 logins, once by MANY

A peak is the kernel's VmHWM: everything resident, the torch library and shared pages included. The aggregator's goal is
what `GlobalModel` promises, MODEL_COPIES times the model and MEMORY_COPIES for a rule that remembers (the jobs are
calibrated, so that theirs does), and AGGREGATOR_BESIDE_MIB; that of a site daemon does not depend on the model. Trainer
and broker have no goal and are shown for who plans a machine.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch

from fedbus.bench.abuse.logins import site
from fedbus.bench.figures import MIB, Logged, Row, lines_of, peak_bytes, row, time_of
from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import FedbusError
from fedbus.local.federation import Daemon, LocalFederation, wait_until
from fedbus.store.state_reader import StateReader
from fedbus.tensors.codec import encode
from fedbus.tensors.global_model import MEMORY_COPIES, MODEL_COPIES

AGGREGATOR_BESIDE_MIB = 300
SITE_DAEMON_MIB = 200
VERSIONS = 3
LARGE_MIB = 500
"""From here on one site trains: a second one would only share this machine's memory."""
BACKLOG = 50
BACKLOG_MIB = 50
MANY = 40
TRAINS_FOR_EVER_S = 1e6


def rows(*, sizes_mib: Sequence[int], backlog_mib: int = BACKLOG_MIB, updates: int = BACKLOG) -> list[Row]:
    """Measure a job of each size, then both backlogs of `updates`; rows of case, value, unit, goal, met."""
    found = [figure for mib in sizes_mib for figure in _job(mib)]
    for senders in (2, MANY) if updates else ():
        found += _backlog(backlog_mib, updates, senders)
    return found


def _job(mib: int) -> Iterator[Row]:
    sites = ("site-a", "site-b") if mib < LARGE_MIB else ("site-a",)
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder, _federation(Path(folder), sites) as federation:
        aggregator, daemons = _start(federation, sites)
        job = _submit(federation, mib, min_sites=len(sites), versions=VERSIONS, step_s=0.0)
        aggregator.wait_for("version-committed", within=_limit(mib), job=job, version=VERSIONS)
        trainers = {daemon.name: peak_bytes(_trainer(daemon)) for daemon in daemons}  # they go when the job ends
        aggregator.wait_for("job-ended", within=_limit(mib), job=job, state="finished")
        case = f"{mib} MiB, {len(sites)} sites" if len(sites) > 1 else f"{mib} MiB, 1 site"
        yield _aggregators_peak(case, mib, aggregator)
        yield from (_site_daemons_peak(case, daemon) for daemon in daemons)
        for name, peak in trainers.items():
            yield row(f"{case}: peak memory of trainer {name}", peak / MIB, "MiB")
        yield row(f"{case}: peak memory of RabbitMQ", peak_bytes(_broker(federation)) / MIB, "MiB")
        yield from phases(case, aggregator, daemons[0])


def _aggregators_peak(case: str, mib: int, aggregator: Daemon) -> Row:
    goal = (MODEL_COPIES + MEMORY_COPIES) * mib + AGGREGATOR_BESIDE_MIB
    return row(f"{case}: peak memory of aggregator", peak_bytes(aggregator.pid) / MIB, "MiB", goal)


def _site_daemons_peak(case: str, daemon: Daemon) -> Row:
    return row(f"{case}: peak memory of daemon {daemon.name}", peak_bytes(daemon.pid) / MIB, "MiB", SITE_DAEMON_MIB)


def phases(case: str, aggregator: Logged, site: Logged) -> Iterator[Row]:
    """How long everything took that moves a whole model, from the daemons' log lines."""
    submitted = time_of(lines_of(aggregator, "job-submitted")[0])
    running = time_of(lines_of(aggregator, "job-running")[0])
    held = {line["version"]: time_of(line) for line in lines_of(site, "version-held")}
    committed = lines_of(aggregator, "version-committed")[0]
    initial, first, *_ = lines_of(site, "update-published")
    ended = time_of(lines_of(aggregator, "job-ended")[0])
    yield row(f"{case}: submitted → training begins, the model in the model log", running - submitted, "s")
    yield row(f"{case}: → at the site", held[0] - submitted, "s")
    yield row(f"{case}: publishing the initial params", initial["publish_s"], "s")
    yield row(f"{case}: publishing an update", first["publish_s"], "s")
    yield row(f"{case}: publishing a version", committed["publish_s"], "s")
    yield row(f"{case}: submitted → {VERSIONS} versions, scored, exported", ended - submitted, "s")


def _backlog(mib: int, updates: int, senders: int) -> Iterator[Row]:
    names = tuple(f"sender-{number:02}" for number in range(senders))
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder,
        _federation(Path(folder), ("site-a", *names)) as federation,
    ):
        aggregator, (trains,) = _start(federation, ("site-a",))
        job = _submit(federation, mib, min_sites=1, versions=updates, step_s=TRAINS_FOR_EVER_S)
        trains.wait_for("version-held", within=_limit(mib), job=job, version=0)
        layout = _layout(federation, job)
        asyncio.run(_take_part(federation, job, names))
        aggregator.stop(timedelta(0))
        asyncio.run(_publish(federation, job, layout, names, updates))
        again = federation.start_aggregator()
        began = time_of(again.wait_for("aggregator-ready"))
        last = again.wait_for("version-committed", within=_limit(mib * updates), version=updates)
        case = f"{mib} MiB, backlog of {updates} updates by {senders} senders"
        yield _aggregators_peak(case, mib, again)
        yield _site_daemons_peak(case, trains)
        yield row(f"{case}: worked off in", time_of(last) - began, "s")


# ---------------------------------------------------------------- daemons and the job


def _limit(mib: int) -> timedelta:
    return timedelta(seconds=120 + mib)


def _federation(folder: Path, logins: tuple[str, ...]) -> LocalFederation:
    return LocalFederation(folder, sites=logins)


def _start(federation: LocalFederation, sites: tuple[str, ...]) -> tuple[Daemon, list[Daemon]]:
    aggregator = federation.start_aggregator(score_timeout_s=600)
    aggregator.wait_for("aggregator-ready")
    daemons = []
    for name in sites:
        data = federation.folder / "data" / name
        data.mkdir(parents=True)
        (data / "none").touch()
        daemons.append(federation.start_site(name, data))
    for daemon in daemons:
        daemon.wait_for("site-ready")
    return aggregator, daemons


def _submit(federation: LocalFederation, mib: int, *, min_sites: int, versions: int, step_s: float) -> str:
    spec = TrainingSpec.parse(
        {
            "name": f"memory-{mib}-mib",
            "task": "synthetic",
            "task_config": {"numel": mib * MIB // 4, "step_s": step_s},
            "min_sites": min_sites,
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
            "strategy": {"kind": "calibrated", "buffer": 1},
            "stop": {"versions": versions},
        }
    )

    async def submit() -> str:
        async with Client(SubmitterSettings.load(broker_url=federation.url("submitter"))) as client:
            return await client.submit(spec)

    return asyncio.run(submit())


def _trainer(site: Daemon) -> int:
    (trainer,) = wait_until(site.trainers, within=timedelta(seconds=30), what=f"the trainer of {site.name}")
    return trainer.pid


def _broker(federation: LocalFederation) -> int:
    pid = federation.node.status().pid
    if pid is None:
        raise FedbusError("the private broker has ended")
    return pid


# ---------------------------------------------------------------- updates without a site


def _layout(federation: LocalFederation, job: str) -> Layout:
    with StateReader(federation.folder / "aggregator") as state:
        (found,) = (row.layout for row in state.ledger.jobs() if row.job == job)
    return Layout.from_dict(found or {})


async def _take_part(federation: LocalFederation, job: str, senders: Sequence[str]) -> None:
    for sender in senders:
        async with site(sender, federation.url(sender)) as by_hand:
            await by_hand.take_part(job)


async def _publish(federation: LocalFederation, job: str, layout: Layout, senders: Sequence[str], updates: int) -> None:
    """Publish updates with the same body, sender after sender."""
    delta = torch.empty(layout.numel).uniform_(-1e-3, 1e-3, generator=torch.Generator().manual_seed(0))
    frames = list(encode(delta, layout, Code.INT8, seed=0))
    post = Post()
    for sender, ids in shared_out(updates, senders).items():
        async with Session(federation.url(sender), name=f"{sender}/updates") as session:
            publisher = Publisher(session)
            for update_id in ids:
                await publisher.publish_many(_chunks(post, job, update_id, frames))
                await publisher.publish(post.from_trainer(_manifest(job, update_id, layout, frames), site=sender))


def shared_out(updates: int, senders: Sequence[str]) -> dict[str, list[m.UpdateId]]:
    """Ids of so many updates, as many for each sender as for the others, or one more."""
    return {
        sender: [
            m.UpdateId(site=sender, incarnation="00000000", sequence=sequence)
            for sequence in range(len(range(number, updates, len(senders))))
        ]
        for number, sender in enumerate(senders)
    }


def _chunks(post: Post, job: str, update_id: m.UpdateId, frames: Sequence[bytes]) -> Iterator[Envelope]:
    for index, frame in enumerate(frames):
        chunk = m.Chunk(job=job, transfer=str(update_id), part="update", index=index, count=len(frames), body=frame)
        yield post.from_trainer(chunk, site=update_id.site)


def _manifest(job: str, update_id: m.UpdateId, layout: Layout, frames: Sequence[bytes]) -> m.UpdateManifest:
    return m.UpdateManifest(
        job=job,
        update_id=str(update_id),
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest=layout.digest,
        frames=len(frames),
        body_bytes=sum(map(len, frames)),
    )
