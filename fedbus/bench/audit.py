"""What a site's audit log costs, and whether its bytes are those of the socket: the site's own door, on a private node.

One site sends updates of `chunks` chunks of a MiB, and messages, by real sessions to queues that nobody reads. Bytes of
the socket are those that the broker's end has acknowledged (TCP_INFO), on both connections that the site publishes on;
those of the log are the sums of its lines. Processor seconds are of this process.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fedbus.audit.writer import Audit, AuditWriter, NoAudit
from fedbus.bench.figures import MIB, Row, row
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import declare
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.local.federation import LocalFederation
from fedbus.site.door import Door, Load, load_of
from fedbus.site.terms import Terms
from fedbus.store.audit import AuditLog, files_of, lines_of
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import Line
from fedbus.store.outbox import Entry, Outbox
from fedbus.trust.sealed_updates import UpdateSeal
from fedbus.trust.sealing import ChunkSeal

SITE, JOB = "site-a", "audited"
GOAL_OVERHEAD_PERCENT = 2.0
LINES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The two connections that a site publishes on."""

    control: Session
    bulk: Session

    @property
    def sent_bytes(self) -> int:
        return self.control.sent_bytes + self.bulk.sent_bytes


def rows(*, updates: int, chunks: int, messages: int) -> list[Row]:
    """Measure; rows of case, value, unit, goal, met."""
    with (
        tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder,
        LocalFederation(Path(folder) / "fed", sites=(SITE,)) as federation,
    ):
        return asyncio.run(_measure(federation, Path(folder), updates, chunks, messages))


async def _measure(federation: LocalFederation, folder: Path, updates: int, chunks: int, messages: int) -> list[Row]:
    async with Session(federation.url("aggregator"), name="bench") as aggregator:
        await declare(aggregator, t.FEDERATION)
        await declare(aggregator, t.job_updates(JOB))
        await declare(aggregator, t.Topology(bindings=(t.updates_from(JOB, SITE),)))
    entry = _entry(folder, chunks)
    async with _sessions(federation.url(SITE)) as sessions:
        audit_log = AuditLog(folder / "audit")
        async with AuditWriter(audit_log) as audit:
            before = sessions.sent_bytes
            await _send(sessions, audit, entry, updates=updates, messages=messages)
            sent = await _acknowledged(sessions) - before
            waits = await _waits(audit)
        lines = [line for file in files_of(folder / "audit") for _, line in lines_of(file) if isinstance(line, Line)]
        cost = await _cost(sessions, folder, entry, updates)
    return [*_bytes(lines, sent, updates), *_costs(lines, waits, cost, entry)]


@asynccontextmanager
async def _sessions(url: str) -> AsyncIterator[Sessions]:
    async with Session(url, name="control") as control, Session(url, name="bulk") as bulk:
        await control.ready()
        await bulk.ready()
        yield Sessions(control=control, bulk=bulk)


def _entry(folder: Path, chunks: int) -> Entry:
    outbox = Outbox(folder / "outbox", SITE)
    update_id = outbox.next_id()
    frame = bytes(MIB)
    with outbox.frames_path(update_id).open("wb") as file:
        for _ in range(chunks):
            file.write(frame)
    manifest = m.UpdateManifest(
        job=JOB,
        update_id=str(update_id),
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1, steps=1, seconds=1.0),
        layout_digest="ab",
        frames=chunks,
        body_bytes=chunks * MIB,
    )
    return outbox.commit(update_id, manifest, [MIB] * chunks)


async def _send(sessions: Sessions, audit: Audit, entry: Entry, *, updates: int, messages: int) -> None:
    door = Door(SITE, post=Post(), control=sessions.control, bulk=sessions.bulk, audit=audit)
    lane = door.lane(JOB, lambda: Terms(submitter="submitter", task="synthetic", task_version="1", policy="none"))
    for number in range(messages):
        await door.say(m.OfferAnswer(site=SITE, job=JOB, accepted=True, layout=f"{number:032}"))
        await door.say(m.SiteStatus(site=SITE, session="bench", lease_s=30.0))
    for _ in range(updates):
        load = await asyncio.to_thread(load_of, entry, None)
        if isinstance(audit, NoAudit):
            load = Load(chunks=load.chunks, size_bytes=load.size_bytes, sha256="")
        await lane.admit(entry.manifest, load)
        await lane.send_chunks(_chunks(entry), seal=None)
        await lane.send(entry.manifest)
    door.close()


def _chunks(entry: Entry) -> Iterator[m.Chunk]:
    count = len(entry.frame_bytes)
    for index, frame in enumerate(entry.frames()):
        yield m.Chunk(job=JOB, transfer=str(entry.update_id), part="update", index=index, count=count, body=frame)


async def _acknowledged(sessions: Sessions) -> int:
    """What was sent, once the kernel has heard of all of it: when a question later nothing more is acknowledged."""
    while True:
        sent = sessions.sent_bytes
        for session in (sessions.control, sessions.bulk):
            await (await session.channel()).close()
        if sessions.sent_bytes - sent < 1000:
            return sent


async def _waits(audit: Audit) -> list[float]:
    waits = []
    for number in range(LINES):
        began = time.perf_counter()
        await audit.write(Kind.MESSAGE_LEAVES, message="none", bytes=0, job=JOB, number=number)
        waits.append(time.perf_counter() - began)
    return waits


def _bytes(lines: list[Line], sent: int, updates: int) -> Iterator[Row]:
    logged = sum(int(line.facts["bytes"]) for line in lines if "bytes" in line.facts)
    of_updates = [line for line in lines if line.kind == Kind.UPDATE_LEAVES]
    yield row("bytes that left, by the log", logged, "B")
    yield row("bytes that the broker acknowledged, on the sockets", sent, "B")
    yield row("more on the sockets than in the log", 100.0 * (sent - logged) / logged, "%", GOAL_OVERHEAD_PERCENT)
    yield row("lines an update", len(of_updates) / updates, "", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor seconds a GB: of sending without a log, of the hash over what leaves, of it sealed; of one line."""

    plain: float
    hashing: float
    sealed: float
    line: float


async def _cost(sessions: Sessions, folder: Path, entry: Entry, updates: int) -> Cost:
    size_gb = sum(entry.frame_bytes) / 1e9
    seal = UpdateSeal(headers={}, chunks=ChunkSeal(bytes(32), b"bench"))
    plain, hashing, sealed = [], [], []
    for _ in range(max(3, updates)):
        hashing.append(_processor_s(entry, None) / size_gb)
        sealed.append(_processor_s(entry, seal) / size_gb)
        began = time.process_time()
        await _send(sessions, NoAudit(), entry, updates=1, messages=0)
        plain.append((time.process_time() - began) / size_gb - hashing[-1])
    audit_log = AuditLog(folder / "lines")
    async with AuditWriter(audit_log) as audit:
        began = time.process_time()
        await _waits(audit)
        line = (time.process_time() - began) / LINES
    middle = statistics.median
    return Cost(plain=middle(plain), hashing=middle(hashing), sealed=middle(sealed), line=line)


def _processor_s(entry: Entry, seal: UpdateSeal | None) -> float:
    began = time.process_time()
    load_of(entry, seal)
    return time.process_time() - began


def _costs(lines: list[Line], waits: list[float], cost: Cost, entry: Entry) -> Iterator[Row]:
    line = next(line for line in lines if line.kind == Kind.UPDATE_LEAVES)
    size = len(repr(dict(line.facts))) + 150  # its sequence, time, kind and hash
    yield row("bytes of an update's line, about", size, "B")
    yield row("a line durable, median", 1000 * statistics.median(waits), "ms")
    yield row("a line durable, worst of 200", 1000 * max(waits), "ms")
    yield row("processor time of a line", 1000 * cost.line, "ms")
    yield row("sending without a log", cost.plain, "s/GB")
    yield row("SHA-256 over what leaves", cost.hashing, "s/GB")
    yield row("SHA-256 over what leaves, sealed for it", cost.sealed, "s/GB")
    whole = cost.hashing + cost.line / (sum(entry.frame_bytes) / 1e9)
    yield row("the log beside sending, unsealed", 100.0 * whole / cost.plain, "%")
