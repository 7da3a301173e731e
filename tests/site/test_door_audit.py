"""Nothing passes the door before its line is on the disk; while the line cannot be written, nothing leaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbus.audit.writer import Audit, AuditWriter
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.errors import DiskFullError, WithheldError
from fedbus.site.door import Lane, Load, load_of
from fedbus.site.message_lines import HOUR_S, MessageLines
from fedbus.site.terms import Terms
from fedbus.store.audit import AuditLog, files_of, lines_of, newest
from fedbus.store.audit_check import verify
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import Entry, Head, Line
from fedbus.store.outbox import Outbox
from fedbus.trust.sealed_updates import UpdateSeal
from fedbus.trust.sealing import ChunkSeal

LOAD = Load(chunks=1, size_bytes=4, sha256="ab" * 32)
UPDATE = "mercy:0123abcd:7"
MANIFEST = m.UpdateManifest(
    job="heart",
    update_id=UPDATE,
    kind=m.UpdateKind.DELTA,
    base_version=0,
    effort=Effort(num_examples=3, steps=1, seconds=0.1),
    layout_digest="1a",
    frames=1,
    body_bytes=4,
)
CHUNK = m.Chunk(job="heart", transfer=UPDATE, part="update", index=0, count=1, body=b"1234")


class Wire:
    """What was published."""

    def __init__(self) -> None:
        self.sent: list[Envelope] = []

    async def publish(self, envelope: Envelope) -> None:
        self.sent.append(envelope)

    async def publish_many(self, envelopes: Iterable[Envelope]) -> int:
        self.sent += envelopes
        return len(self.sent)


class SmallDisk(AuditLog):
    """A log on a disk that is full until `room`."""

    room = True
    tries = 0

    def append(self, entries: list[Entry]) -> list[Head]:  # type: ignore[override]
        self.tries += 1
        if not self.room:
            raise DiskFullError("cannot write audit log: the disk is full")
        return super().append(entries)


def lane_to(wire: Wire, audit: Audit, rules: Any = None) -> Lane:
    return Lane(
        "heart",
        site="mercy",
        post=Post(),
        publisher=wire,  # type: ignore[arg-type]
        audit=audit,
        terms=lambda: Terms(submitter="ana", task="digits", task_version="fedbus 1", policy="file 12ab"),
        rules=rules,
    )


@asynccontextmanager
async def writing(folder: Path, **settings: Any) -> AsyncIterator[tuple[SmallDisk, AuditWriter]]:
    log = SmallDisk(folder)
    async with AuditWriter(log, retry_s=0.001, site="mercy", **settings) as audit:
        yield log, audit


async def test_an_update_leaves_after_its_line_and_its_manifest_says_the_head(tmp_path: Path) -> None:
    wire = Wire()
    async with writing(tmp_path) as (_, audit):
        lane = lane_to(wire, audit)
        with pytest.raises(ValueError, match="without a line in the audit log"):
            await lane.send_chunks([CHUNK], seal=None)
        assert wire.sent == []
        await lane.admit(MANIFEST, LOAD)
        line = newest(tmp_path, Kind.UPDATE_LEAVES)
        await lane.send_chunks([CHUNK], seal=None)
        await lane.send(MANIFEST)
    assert line is not None
    assert line.facts["sha256"] == LOAD.sha256
    assert {"submitter": "ana", "policy": "file 12ab", "bytes": 4}.items() <= line.facts.items()
    manifest = Post().from_envelope(replace(wire.sent[-1], user_id="mercy"))
    assert isinstance(manifest, m.UpdateManifest)
    assert manifest.audit == str(line.head)
    assert verify(tmp_path, [line.head]).heads == 1


async def test_while_the_log_cannot_be_written_nothing_leaves_and_room_lets_it_go_on(tmp_path: Path) -> None:
    wire = Wire()
    async with writing(tmp_path) as (log, audit):
        lane = lane_to(wire, audit)
        await audit.write(Kind.JOB_OFFERED, job="heart")
        log.room = False
        tries = log.tries

        async def upload() -> None:
            await lane.admit(MANIFEST, LOAD)
            await lane.send_chunks([CHUNK], seal=None)
            await lane.send(MANIFEST)

        uploading = asyncio.create_task(upload())
        while log.tries < tries + 3:  # noqa: ASYNC110 the disk says it in a plain attribute
            await asyncio.sleep(0)
        assert wire.sent == []
        log.room = True
        await uploading
    assert len(wire.sent) == 2
    assert verify(tmp_path).fault is None


async def test_lines_that_come_together_share_a_write_and_keep_their_order(tmp_path: Path) -> None:
    async with writing(tmp_path) as (log, audit):
        await audit.write(Kind.JOB_OFFERED, job="heart")
        tries = log.tries
        audit.note(Kind.JOB_ACCEPTED, job="heart")
        heads = await asyncio.gather(*(audit.write(Kind.MESSAGE_LEAVES, bytes=n) for n in range(50)))
        assert log.tries <= tries + 2
    assert [head.sequence for head in heads] == list(range(heads[0].sequence, heads[0].sequence + 50))
    assert verify(tmp_path, heads).heads == 50


async def test_of_notes_without_end_the_rest_is_counted(tmp_path: Path) -> None:
    async with writing(tmp_path, most_waiting=10) as (_, audit):
        await audit.write(Kind.JOB_OFFERED)
        for _ in range(25):
            audit.note(Kind.DEAD_LETTER, sender="mercy")
        await audit.write(Kind.JOB_OFFERED)
        line = newest(tmp_path, Kind.LINES_LOST)
    assert line is not None
    assert line.facts == {"lines": 15}


class NothingLeaves:
    """Rules of a site from which nothing may leave."""

    out = None

    async def admit(self, manifest: m.UpdateManifest) -> None:
        raise WithheldError("it holds too few examples")


async def test_what_is_withheld_has_a_line_and_does_not_leave(tmp_path: Path) -> None:
    wire = Wire()
    async with writing(tmp_path) as (_, audit):
        lane = lane_to(wire, audit, rules=NothingLeaves())
        with pytest.raises(WithheldError):
            await lane.admit(MANIFEST, LOAD)
        with pytest.raises(ValueError, match="without a line"):
            await lane.send_chunks([CHUNK], seal=None)
    line = newest(tmp_path, Kind.WITHHELD)
    assert line is not None
    assert line.facts == {"job": "heart", "update": UPDATE, "reason": "it holds too few examples"}
    assert wire.sent == []


@pytest.mark.parametrize("sealed", [False, True])
async def test_the_line_has_bytes_and_hash_of_what_leaves(tmp_path: Path, sealed: bool) -> None:
    frames = (b"one" * 500, b"two", b"three")
    outbox = Outbox(tmp_path / "outbox", "mercy")
    update_id = outbox.next_id()
    outbox.frames_path(update_id).write_bytes(b"".join(frames))
    manifest = replace(MANIFEST, update_id=str(update_id))
    entry = outbox.commit(update_id, manifest, [len(frame) for frame in frames])
    seal = UpdateSeal(headers={"seal": "ab"}, chunks=ChunkSeal(bytes(32), b"about")) if sealed else None
    wire = Wire()
    async with writing(tmp_path / "audit") as (_, audit):
        lane = lane_to(wire, audit)
        await lane.admit(manifest, load_of(entry, seal))
        chunks = (
            replace(CHUNK, transfer=str(update_id), index=index, count=3, body=body)
            for index, body in enumerate(frames)
        )
        await lane.send_chunks(chunks, seal=seal)
    left = b"".join(envelope.body for envelope in wire.sent)
    line = newest(tmp_path / "audit", Kind.UPDATE_LEAVES)
    assert line is not None
    assert (line.facts["bytes"], line.facts["sha256"]) == (len(left), hashlib.sha256(left).hexdigest())
    assert sealed != (left == b"".join(frames))


async def test_what_leaves_often_has_one_line_an_hour_and_every_byte_is_counted(tmp_path: Path) -> None:
    now = 0.0
    async with writing(tmp_path) as (_, audit):
        lines = MessageLines(audit, lambda: now, most_single=3)
        for _ in range(9):
            await lines.leaves("status", 10, {})
            await lines.leaves("join", 100, {})
        now += HOUR_S
        for _ in range(2):
            await lines.leaves("status", 10, {})
            await lines.leaves("join", 100, {})
        now += HOUR_S
        await lines.leaves("join", 100, {})
        lines.close()
    found = [line for file in files_of(tmp_path) for _, line in lines_of(file) if isinstance(line, Line)]
    left = [(line.facts["message"], line.kind, line.facts["bytes"]) for line in found if "bytes" in line.facts]
    assert sum(size for _, _, size in left) == 11 * 10 + 12 * 100
    assert [kind for message, kind, _ in left if message == "status"] == [Kind.MESSAGES_LEAVE] * 3
    # three of their own, the beginning of an hour, that hour and the next, and one of its own when it is quiet again
    assert [size for message, _, size in left if message == "join"] == [100, 100, 100, 0, 600, 200, 100]
