"""The model log's writer: chunks before their manifest, and a snapshot when reading it is cheaper than replaying."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.model.log import (
    IN_FLIGHT_BYTES,
    MOST_RECEIPTS,
    MOST_VERSIONS,
    REPLAY_MODELS,
    ModelLogWriter,
    stream_of,
)
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.chain import chain_of
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import DELTA, SNAPSHOT
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.ledger import Ledger

LAYOUT = Layout.of([TensorSpec(name="w", shape=(100,), dtype="float32")])
WHOLE = [b"s" * 200, b"s" * 200]


class Publisher:
    """Keeps what it is given, in order."""

    def __init__(self) -> None:
        self.sent: list[Envelope] = []

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        self.sent.append(envelope)

    async def publish_many(self, envelopes: Iterable[Envelope] | AsyncIterable[Envelope], *, window: int) -> int:
        before = len(self.sent)
        if isinstance(envelopes, AsyncIterable):
            self.sent += [envelope async for envelope in envelopes]
        else:
            self.sent += envelopes
        return sum(len(envelope.body) for envelope in self.sent[before:])

    def messages(self) -> list[Any]:
        return [wire.decode(e.type, e.headers, e.body) for e in self.sent]


def spec(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "heart", "task": "t", "local": local, "stop": {"versions": 9}} | keys)


def writer(publisher: Publisher, **keys: Any) -> ModelLogWriter:
    return ModelLogWriter("heart", spec(**keys), LAYOUT, publisher, post=Post())  # type: ignore[arg-type]


async def at_once(function: Callable[..., Any], *args: Any) -> Any:
    """A compute thread without a thread."""
    return function(*args)


async def send(log: ModelLogWriter, version: int, part: str, frames: list[bytes]) -> m.Part:
    return await log.send(version, part, iter(frames), count=len(frames), compute=at_once)  # type: ignore[arg-type]


async def publish(
    log: ModelLogWriter,
    version: int,
    *,
    delta_bytes: int = 40,
    snapshot: bool = False,
    receipts: tuple[m.Receipt, ...] = (),
) -> int:
    delta = await send(log, version, DELTA, [b"d" * delta_bytes]) if version else None
    whole = await send(log, version, SNAPSHOT, WHOLE) if snapshot else None
    return await log.finish(version, digest=f"digest {version}", delta=delta, snapshot=whole, receipts=receipts)


async def snapshots(log: ModelLogWriter, versions: int, *, delta_bytes: int) -> list[int]:
    """Which versions bring a snapshot when the writer's own rule is followed."""
    found = []
    for version in range(versions):
        if log.wants_snapshot(version):
            found.append(version)
        await publish(log, version, delta_bytes=delta_bytes, snapshot=log.wants_snapshot(version))
    return found


async def test_the_manifest_comes_last_and_alone() -> None:
    publisher = Publisher()
    sent_bytes = await publish(writer(publisher), 3, snapshot=True)
    *chunks, manifest = publisher.messages()
    assert [(c.part, c.index, c.count, c.transfer) for c in chunks] == [
        ("delta", 0, 1, "3"),
        ("snapshot", 0, 2, "3"),
        ("snapshot", 1, 2, "3"),
    ]
    assert isinstance(manifest, m.VersionManifest)
    assert manifest.delta == m.Part(frames=1, body_bytes=40)
    assert manifest.snapshot == m.Part(frames=2, body_bytes=400)
    assert sent_bytes == 440


async def test_a_manifest_says_where_the_newest_snapshot_is_and_carries_the_layout_only_with_one() -> None:
    publisher = Publisher()
    log = writer(publisher)
    await publish(log, 0, snapshot=True)
    await publish(log, 1)
    first, second = (x for x in publisher.messages() if isinstance(x, m.VersionManifest))
    assert (first.snapshot_version, first.layout) == (0, LAYOUT.to_dict())
    assert (second.snapshot_version, second.layout, second.snapshot) == (0, None, None)
    assert 0 < first.snapshot_at == second.snapshot_at


async def test_a_manifest_says_how_many_records_back_its_snapshot_begins() -> None:
    publisher = Publisher()
    log = writer(publisher)
    for version in range(6):
        await publish(log, version, snapshot=version in (1, 4))
    records = publisher.messages()
    for place, manifest in enumerate(records):
        if isinstance(manifest, m.VersionManifest) and manifest.version > 0:
            first = records[place - manifest.snapshot_back]
            assert (first.part, first.index, int(first.transfer)) == ("snapshot", 0, manifest.snapshot_version)
        elif isinstance(manifest, m.VersionManifest):
            assert manifest.snapshot_back == 0


async def test_receipts_travel_with_the_version() -> None:
    publisher = Publisher()
    receipt = m.Receipt(job="heart", update_id="mercy:0123abcd:1", outcome=m.Outcome.FOLDED)
    await publish(writer(publisher), 1, receipts=(receipt,))
    assert publisher.messages()[-1].receipts == (receipt,)


async def test_a_flood_of_receipts_does_not_make_a_version_too_long_to_send() -> None:
    publisher = Publisher()
    receipts = tuple(
        m.Receipt(job="heart", update_id=f"mercy:0123abcd:{n}", outcome=m.Outcome.REFUSED, reason="body: damaged")
        for n in range(MOST_RECEIPTS + 5)
    )
    await publish(writer(publisher), 1, receipts=receipts)
    assert publisher.messages()[-1].receipts == receipts[5:]


async def test_a_part_of_any_size_is_made_only_as_far_as_it_is_sent() -> None:
    """What was made and is not on its way yet is never more than IN_FLIGHT_BYTES and a frame."""
    publisher, waiting, most_waiting = Publisher(), 0, 0
    frame = b"f" * (IN_FLIGHT_BYTES // 4 - 1)

    def made() -> Iterator[bytes]:
        nonlocal waiting, most_waiting
        for _ in range(20):
            waiting += 1
            most_waiting = max(most_waiting, waiting - len(publisher.sent))
            yield frame

    part = await writer(publisher).send(1, DELTA, made(), count=20, compute=at_once)  # type: ignore[arg-type]

    assert [(c.index, c.count) for c in publisher.messages()] == [(i, 20) for i in range(20)]
    assert part == m.Part(frames=20, body_bytes=20 * len(frame))
    assert most_waiting == 5


async def test_the_same_version_again_has_the_same_message_ids() -> None:
    publisher = Publisher()
    log = writer(publisher)
    await publish(log, 1)
    first, publisher.sent = [e.message_id for e in publisher.sent], []
    await publish(log, 1)
    assert [e.message_id for e in publisher.sent] == first


async def test_small_deltas_bring_a_snapshot_every_so_many_versions() -> None:
    assert await snapshots(writer(Publisher()), 130, delta_bytes=1) == [0, MOST_VERSIONS, 2 * MOST_VERSIONS]


async def test_the_job_may_want_snapshots_more_often() -> None:
    assert await snapshots(writer(Publisher(), snapshot_every=3), 9, delta_bytes=1) == [0, 3, 6]


async def test_deltas_as_large_as_the_model_bring_one_before_a_joiner_would_read_much_more() -> None:
    found = await snapshots(writer(Publisher()), 16, delta_bytes=400)
    assert found == [0, REPLAY_MODELS + 1, 2 * (REPLAY_MODELS + 1), 3 * (REPLAY_MODELS + 1)]


async def test_a_writer_after_a_restart_wants_a_snapshot_for_it_does_not_know_the_last() -> None:
    assert writer(Publisher()).wants_snapshot(57)


@pytest.mark.parametrize("snapshot_every", [None, 1, 3, 64, 1000])
@pytest.mark.parametrize("delta_bytes", [1, 100, 400])
async def test_the_stream_is_large_enough_for_a_snapshot_and_all_that_follows_it(
    snapshot_every: int | None, delta_bytes: int
) -> None:
    """What lies from one snapshot to the end of the next one must never be more than half of what is kept."""
    keys = {} if snapshot_every is None else {"snapshot_every": snapshot_every}
    publisher = Publisher()
    log = writer(publisher, **keys)
    size = ModelLogWriter.size(spec(**keys), LAYOUT)
    assert size.snapshot_bytes == 400
    await snapshots(log, 200, delta_bytes=delta_bytes)
    longest = current = 0
    for envelope in publisher.sent:
        message = wire.decode(envelope.type, envelope.headers, envelope.body)
        if isinstance(message, m.Chunk):
            current += len(message.body)
        elif message.snapshot is not None:  # type: ignore[union-attr]
            longest, current = max(longest, current), 0
    segments = 2 * size.segment_bytes
    assert 2 * longest <= size.retention_bytes - segments


# ------------------------------------------------------------------ hashes and chain


async def chained(versions: range, after: tuple[int, str]) -> list[m.VersionManifest]:
    """Manifests of these versions by a writer that begins after a version with a chain."""
    publisher = Publisher()
    log = ModelLogWriter("heart", spec(), LAYOUT, publisher, post=Post(), chained=after)  # type: ignore[arg-type]
    for version in versions:
        await publish(log, version, snapshot=version == 0)
    return [x for x in publisher.messages() if isinstance(x, m.VersionManifest)]


async def test_a_writer_without_a_kit_says_neither_hash_nor_chain() -> None:
    publisher = Publisher()
    await publish(writer(publisher), 3, snapshot=True)
    assert b"sha256" not in publisher.sent[-1].body
    assert b"chain" not in publisher.sent[-1].body


async def test_with_a_kit_a_version_says_the_hash_of_its_frames_and_of_what_came_before() -> None:
    first, second = await chained(range(2), (-1, ""))
    assert first.snapshot is not None
    assert second.delta is not None
    assert first.snapshot.sha256 == hashlib.sha256(b"".join(WHOLE)).hexdigest()
    assert second.delta.sha256 == hashlib.sha256(b"d" * 40).hexdigest()
    linked = {"job": "heart", "version": 1, "digest": "digest 1", "delta": second.delta, "snapshot": None}
    assert second.chain == chain_of(first.chain, **linked)  # type: ignore[arg-type]


async def test_after_a_restart_the_same_chain_goes_on_and_a_version_again_says_the_same() -> None:
    manifests = await chained(range(4), (-1, ""))
    after = (2, manifests[2].chain)
    assert [again.chain for again in await chained(range(3, 4), after)] == [manifests[3].chain]
    # a snapshot for those who asked has other frames
    assert [again.chain for again in await chained(range(2, 3), after)] == [manifests[2].chain]


def test_the_ledger_keeps_the_chain_of_the_newest_version(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        assert ledger.trust.newest_chain("heart") == (-1, "")
        for version in (0, 1, 1):
            ledger.mark_published("heart", version, at=1.0, chain=f"{version:064x}")
        ledger.mark_published("lung", 7, at=1.0)
        assert ledger.trust.newest_chain("heart") == (1, f"{1:064x}")
        assert ledger.trust.newest_chain("lung") == (-1, "")


# ------------------------------------------------------------------ its name


class Tools:
    """A ledger, and the thread that works on it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.store = at_once


async def name_of(job: str, path: Path) -> str:
    """The name that an aggregator gives the log after it was started anew."""
    with Ledger(path) as ledger:
        return await stream_of(job, Tools(ledger))  # type: ignore[arg-type]


async def test_nobody_can_guess_the_name_of_a_log_and_a_restart_finds_it_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    names = [await name_of(job, path) for job in ("heart", "heart", "lung")]
    assert names[0] == names[1]
    secrets = [
        name.removeprefix(f"fedbus.models.{job}.") for name, job in zip(names[1:], ("heart", "lung"), strict=True)
    ]
    assert all(re.fullmatch(r"[0-9a-f]{32}", secret) for secret in secrets)
    assert secrets[0] != secrets[1]


async def test_a_job_that_an_earlier_release_has_begun_keeps_the_name_that_its_sites_know(tmp_path: Path) -> None:
    # given a ledger of an earlier release, which has no table of names, and a job with a version in its log
    path = tmp_path / "ledger.sqlite3"
    with Ledger(path) as ledger:
        ledger.mark_published("heart", 0, at=1.0)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE model_logs")
    # then its log keeps its name, also after the next restart
    assert [await name_of("heart", path) for _ in range(2)] == ["fedbus.models.heart"] * 2
