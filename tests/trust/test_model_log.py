"""A job's model log before somebody who may write and delete in it: the broker's operator, and a site that has left.

The aggregator's own writer, the site's own reader; between them a list of records, for a test to change.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.frames import Code, build_frame
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import DELTA, SNAPSHOT
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import ProtocolError, SealError, SignatureError
from fedbus.site.job.model_files import ModelFiles, Step
from fedbus.site.job.model_log import KEYS, SealedLog
from fedbus.store.ledger import Ledger
from fedbus.trust.authority import Authority
from fedbus.trust.epochs import LogKeys, PartSeal
from fedbus.trust.identity import Identity
from fedbus.trust.sealing import PublicKey, announced
from fedbus.trust.subjects import Role
from fedbus.trust.suites import SUITES, SealSuite
from tests.small_federation import subject, write_kit

LAYOUT = Layout.of([TensorSpec(name="w", shape=(100,), dtype="float32")])
SPEC = TrainingSpec.parse(
    {
        "name": "heart",
        "task": "t",
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        "stop": {"versions": 9},
    }
)
VALUES = os.urandom(40)


def frames(version: int) -> list[bytes]:
    """Three frames, of which no two are alike, with values that nobody can guess."""
    return [build_frame(Code.FP32, 10 * n, 10, [VALUES, struct.pack("<2I", version, n)]) for n in range(3)]


async def at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Another thread without a thread."""
    return function(*args, **kwargs)


@dataclasses.dataclass(kw_only=True)
class Publisher:
    """What the operator of the broker has of a model log."""

    post: Post
    records: list[Envelope] = dataclasses.field(default_factory=list)

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        self.records.append(dataclasses.replace(self.post.outgoing(envelope), user_id="aggregator"))

    async def publish_many(self, envelopes: Iterable[Envelope], *, window: int) -> int:
        for envelope in envelopes:
            await self.publish(envelope)
        return 0


class House:
    """An aggregator that publishes versions of one job."""

    def __init__(self, post: Post, ledger: Ledger, sites: dict[str, Post], *, suite: int = SUITES["x25519"]) -> None:
        def seal_key_of(site: str) -> PublicKey:
            guard = sites[site].guard
            assert guard is not None
            return announced(guard.seal_keys.texts(), suite)

        async def tell() -> None:
            """Whoever reads is told by the test."""

        self.tell = tell
        self.publisher = Publisher(post=post)
        where: dict[str, Any] = {"federation": "hearts", "ledger": ledger, "store": at_once}
        self.epochs = Epochs("heart", **where, seal_key_of=seal_key_of)
        publisher: Any = self.publisher
        self.writer = ModelLogWriter("heart", SPEC, LAYOUT, publisher, post=post, chained=(-1, ""), epochs=self.epochs)

    async def publish(self, version: int, part: str = DELTA) -> list[Envelope]:
        """The records of a version, and its manifest last."""
        before = len(self.publisher.records)
        compute: Any = at_once
        sent = await self.writer.send(version, part, iter(frames(version)), count=3, compute=compute)
        parts = {"delta": sent if part == DELTA else None, "snapshot": sent if part == SNAPSHOT else None}
        await self.writer.finish(version, digest=f"digest {version}", **parts)
        return self.publisher.records[before:]


class Reader:
    """A site of the job; what it asks for."""

    def __init__(self, post: Post, folder: Path, house: House) -> None:
        self.name = post.guard.identity.name if post.guard else ""
        self.house = house
        self.asked: list[str] = []
        self.files = ModelFiles(folder / "model", chained=True)
        guard = post.guard
        assert guard is not None
        self.log = SealedLog("heart", post, guard, folder=folder, ask=self.ask, patience=timedelta(milliseconds=1))

    async def ask(self, reason: str) -> None:
        self.asked.append(reason)
        self.log.take_keys(self.house.epochs.keys_for(self.name))

    async def start(self) -> None:
        await self.house.epochs.let_in(self.name)
        self.log.take_keys(self.house.epochs.keys_for(self.name))

    async def read(self, records: Iterable[Envelope]) -> Step | None:
        """As the site's worker reads; what the last manifest led to."""
        step = None
        for record in records:
            message = await self.log.read(record)
            if isinstance(message, m.Chunk):
                self.files.chunk(message)
            elif isinstance(message, m.VersionManifest):
                step = self.files.manifest(message)
        return step

    @property
    def version(self) -> int:
        return -1 if self.files.held is None else self.files.held.version


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Post]:
    folder, authority = tmp_path_factory.mktemp("kits"), Authority.new("hearts", at=datetime.now(UTC))
    for number, name in enumerate(("aggregator", "mercy", "ucsf")):
        whom = subject(name, Role.AGGREGATOR) if not number else subject(name, number=number)
        write_kit(folder / name, authority, whom)
    return {name: Post(Identity.load(folder / name)) for name in ("aggregator", "mercy", "ucsf")}


@pytest.fixture
async def house(posts: dict[str, Post], tmp_path: Path) -> AsyncIterator[House]:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        house = House(posts["aggregator"], ledger, posts)
        await house.epochs.open(house.tell)
        yield house


@pytest.fixture
async def mercy(house: House, posts: dict[str, Post], tmp_path: Path) -> Reader:
    """Holds version 1: a snapshot and a delta."""
    mercy = Reader(posts["mercy"], _folder(tmp_path / "mercy"), house)
    await mercy.start()
    assert await mercy.read(await house.publish(0, SNAPSHOT)) is Step.NEW_VERSION
    assert await mercy.read(await house.publish(1)) is Step.NEW_VERSION
    return mercy


@pytest.fixture
async def ucsf(house: House, mercy: Reader, posts: dict[str, Post], tmp_path: Path) -> Reader:
    """Holds version 1, too."""
    ucsf = Reader(posts["ucsf"], _folder(tmp_path / "ucsf"), house)
    await ucsf.start()
    await ucsf.read(house.publisher.records)
    return ucsf


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


# ------------------------------------------------------------------ what the operator sees and does


async def test_nothing_of_a_version_can_be_read_in_the_log(house: House, mercy: Reader) -> None:
    for record in house.publisher.records:
        assert VALUES not in record.body
        assert b"digest" not in record.body
        assert b"tensors" not in record.body


def flipped(record: Envelope) -> Envelope:
    return dataclasses.replace(record, body=record.body[:9] + bytes([record.body[9] ^ 1]) + record.body[10:])


def header(record: Envelope, **changed: str | int) -> Envelope:
    return dataclasses.replace(record, headers={**record.headers, **changed})


Act = Callable[[list[Envelope], list[Envelope]], list[Envelope]]
REFUSED: dict[str, Act] = {
    "flip a bit of a chunk": lambda new, old: [flipped(new[0]), *new[1:]],
    "flip a bit of the manifest": lambda new, old: [*new[:-1], flipped(new[-1])],
    "swap two chunks": lambda new, old: [header(new[0], index=1), header(new[1], index=0), *new[2:]],
    "put a chunk of another version in": lambda new, old: [header(old[0], transfer="2", version=2), *new[1:]],
    "call an older chunk one of this version": lambda new, old: [header(old[0], transfer="2"), *new[1:]],
    "make a snapshot of a delta": lambda new, old: [*(header(r, part=SNAPSHOT) for r in new[:-1]), new[-1]],
    "change the count": lambda new, old: [*(header(r, count=2) for r in new[:-1]), new[-1]],
    "change the salt": lambda new, old: [header(new[0], salt=str(old[0].headers["salt"])), *new[1:]],
    "take the seal off": lambda new, old: [dataclasses.replace(new[0], headers={"job": "heart"}), *new[1:]],
    "take the signature off": lambda new, old: [*new[:-1], header(new[-1], signature="")],
    "put an older manifest's signature on": lambda new, old: [
        *new[:-1],
        header(new[-1], signature=str(old[-1].headers["signature"]), at=str(old[-1].headers["at"])),
    ],
}


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED)
async def test_an_operator_is_refused_to(house: House, mercy: Reader, act: Act) -> None:
    old = house.publisher.records[-4:]
    new = await house.publish(2)
    with pytest.raises(ProtocolError):
        await mercy.read(act(new, old))
    assert mercy.version == 1
    # and the true version is held when it comes
    assert await mercy.read(new) is Step.NEW_VERSION


async def test_a_chunk_that_is_cut_out_makes_a_gap(house: House, mercy: Reader) -> None:
    _, *rest = await house.publish(2)
    assert await mercy.read(rest) is Step.GAP
    assert mercy.version == 1


async def test_a_version_that_is_cut_out_makes_a_gap(house: House, mercy: Reader) -> None:
    await house.publish(2)
    assert await mercy.read(await house.publish(3)) is Step.GAP
    assert mercy.version == 1


async def test_earlier_versions_that_are_replayed_change_nothing(house: House, mercy: Reader) -> None:
    whole = list(house.publisher.records)
    await mercy.read(await house.publish(2))
    assert await mercy.read(whole) is Step.NOTHING
    assert mercy.version == 2


async def test_an_old_log_is_not_shown_to_a_site_that_comes(
    house: House, posts: dict[str, Post], tmp_path: Path
) -> None:
    # given a job at version 1, of which the operator shows version 0 alone
    old = await house.publish(0, SNAPSHOT)
    await house.publish(1)
    late = Reader(posts["mercy"], _folder(tmp_path / "late"), house)
    await late.start()
    # when its start says what is in the log
    late.files.show_from(house.epochs.published)
    await late.read(old)
    # then the trainer gets nothing
    assert late.version == -1


async def test_a_member_signs_no_version(house: House, mercy: Reader, posts: dict[str, Post]) -> None:
    """It has the epoch's key, so it can seal what it likes; the signature is not the aggregator's."""
    house.publisher.post = posts["ucsf"]
    with pytest.raises(SignatureError):
        await mercy.read(await house.publish(2))
    assert mercy.version == 1


async def test_frames_that_a_member_has_sealed_are_not_what_the_manifest_signs(house: House, mercy: Reader) -> None:
    true = await house.publish(2)
    seal = PartSeal(house.epochs.newest, job="heart", version=2, part=DELTA)
    other = build_frame(Code.FP32, 0, 10, [bytes(40), struct.pack("<2I", 2, 0)])
    assert len(other) == len(frames(2)[0])
    forged = dataclasses.replace(true[0], body=seal.seal(other, 0, 3), headers={**true[0].headers, **seal.headers})
    assert await mercy.read([forged, *true[1:]]) is Step.GAP
    assert mercy.files.why == "the delta of version 2 has another hash than its signed manifest says"
    assert mercy.version == 1


# ------------------------------------------------------------------ who reads which version


async def test_who_has_left_opens_no_version_that_came_after(house: House, mercy: Reader, ucsf: Reader) -> None:
    assert ucsf.version == 1
    await house.epochs.out("ucsf")
    after = await house.publish(2)
    # the one that stays asks, for its key may be late, and reads on
    assert await mercy.read(after) is Step.NEW_VERSION
    assert mercy.asked == ["the key of epoch 1 of the model log is not here"]
    # the one that left has all keys that it ever had
    had = LogKeys("heart", ucsf.log._keys.keys)
    for record in after:
        with pytest.raises(SealError, match="no key of epoch 1"):
            had.opened(record.type, record.headers, record.body)


async def test_a_site_passes_over_what_was_not_for_it_and_reads_from_the_snapshot(
    house: House, mercy: Reader, posts: dict[str, Post], tmp_path: Path
) -> None:
    await house.epochs.out("mercy")
    await house.publish(2)
    await house.publish(2, SNAPSHOT)
    late = Reader(posts["ucsf"], _folder(tmp_path / "late"), house)
    await late.start()
    assert await late.read(house.publisher.records) is Step.NEW_VERSION
    assert (late.version, late.asked) == (2, [])
    assert [key.number for key in late.log._keys.keys] == [1]


async def test_a_record_waits_for_the_key_that_is_on_its_way(house: House, mercy: Reader, ucsf: Reader) -> None:
    await house.epochs.out("ucsf")
    mercy.log._patience = timedelta(minutes=1)
    reading = asyncio.create_task(mercy.read(await house.publish(2)))
    await asyncio.sleep(0)
    assert not reading.done()
    mercy.log.take_keys(house.epochs.keys_for("mercy"))
    assert await reading is Step.NEW_VERSION
    assert mercy.asked == []


async def test_keys_lie_in_the_jobs_folder_for_their_owner_alone_and_last(
    house: House, mercy: Reader, posts: dict[str, Post], tmp_path: Path
) -> None:
    path = tmp_path / "mercy" / KEYS
    assert path.stat().st_mode & 0o777 == 0o600
    again = Reader(posts["mercy"], tmp_path / "mercy", house)
    assert again.log._keys.keys == mercy.log._keys.keys
    path.write_text("[[0, 7]]")
    assert Reader(posts["mercy"], tmp_path / "mercy", house).log._keys.keys == ()


@pytest.mark.parametrize("suite", SUITES)
async def test_every_suite_gives_keys(suite: SealSuite, posts: dict[str, Post], tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        house = House(posts["aggregator"], ledger, posts, suite=SUITES[suite])
        await house.epochs.open(house.tell)
        reader = Reader(posts["mercy"], _folder(tmp_path / "mercy"), house)
        await reader.start()
        assert await reader.read(await house.publish(0, SNAPSHOT)) is Step.NEW_VERSION


async def test_a_start_without_keys_or_with_another_sites_is_refused(house: House, mercy: Reader, ucsf: Reader) -> None:
    for text in ("", house.epochs.keys_for("ucsf"), "AAAA"):
        with pytest.raises(SealError):
            mercy.log.take_keys(text)
