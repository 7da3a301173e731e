"""The intake over a real ledger and spool: each update complete exactly once, whatever comes twice or is killed."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbus.aggregator.incoming.complete import Complete, Unwanted
from fedbus.aggregator.incoming.intake import BROKEN, MAX_WAITING, Intake, prefetch
from fedbus.aggregator.incoming.uploads import Receiving
from fedbus.aggregator.workers import Disk, Worker
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.errors import DiskFullError
from fedbus.store.ledger import DECIDED, RECEIVING, SPOOLED, Ledger
from fedbus.store.spool import Spool

POST = Post()
JOB = "heart"
CHUNK_BYTES = 256 * 1024


class Delivery:
    """One message and whether it was acknowledged."""

    def __init__(self, envelope: Envelope, user_id: str | None) -> None:
        self.envelope = dataclasses.replace(envelope, user_id=user_id)
        self.acked = 0
        self.channel = 1
        self.before: list[Delivery] = []

    async def ack(self, *, and_before: bool = False) -> None:
        for delivery in self.before if and_before else []:
            if not delivery.acked:
                await delivery.ack()
        self.acked += 1


class KilledError(Exception):
    """The process was killed here."""


class Store:
    """Runs what the store thread would run; is killed before or after its n-th write."""

    def __init__(self, *, killed_before: int = 10**9, killed_after: int = 10**9) -> None:
        self.calls: list[str] = []
        self.killed_before = killed_before
        self.killed_after = killed_after

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name = function.__name__
        if name in ("update_states", "manifests", "chunks", "remove_unknown"):
            return function(*args, **kwargs)
        if len(self.calls) == self.killed_before:
            raise KilledError
        self.calls.append(name)
        result = function(*args, **kwargs)
        if len(self.calls) > self.killed_after:
            raise KilledError
        return result


class FullDisk:
    """The store thread, where one write finds no room for its first tries."""

    def __init__(self, worker: Worker, write: str, tries: int) -> None:
        self.worker = worker
        self.write = write
        self.tries = tries

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def tried() -> Any:
            if function.__name__ == self.write and self.tries:
                self.tries -= 1
                raise DiskFullError(f"{self.write}: the disk is full")
            return function(*args, **kwargs)

        return await self.worker(tried)


class Desk:
    """One life of the aggregator's intake of one job, at a time that tests set."""

    def __init__(self, folder: Path, store: Store | FullDisk | None = None) -> None:
        self.now = 1000.0
        self.most_bytes = 1 << 30
        self.strangers: set[str] = set()
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.spool = Spool(folder / "spool")
        self.store = store or Store()
        self.refused: list[tuple[Any, str]] = []
        self.repeated: list[str] = []
        self.asked: list[str] = []
        self.dropped: list[str] = []
        self.useless: Counter[str] = Counter()
        self.complete = Complete()
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.intake = Intake(
            JOB,
            chunk_bytes=CHUNK_BYTES,
            most_bytes=lambda: self.most_bytes,
            takes_part=lambda site: site not in self.strangers,
            ledger=self.ledger,
            spool=self.spool,
            post=POST,
            store=self.store,  # type: ignore[arg-type]
            refuse=self.refuse,
            repeat=self.repeat,
            ask_again=self.ask_again,
            dropped=self.drop,
            useless=lambda login, messages, size_bytes: self.useless.update({login: messages}),
            complete=self.complete,
            partial_ttl=timedelta(hours=1),
            clock=lambda: self.now,
        )

    async def refuse(self, delivery: Any, reason: str) -> None:
        self.refused.append((delivery, reason))

    async def repeat(self, update_id: str) -> None:
        self.repeated.append(update_id)

    async def ask_again(self, update_id: str) -> None:
        self.asked.append(update_id)

    async def drop(self, site: str, text: str) -> None:
        self.dropped.append(text)

    async def after(self, **time: float) -> None:
        """Time passes, and the intake looks around."""
        self.now += timedelta(**time).total_seconds()
        await self.intake.sweep(self.now)

    async def coming(self) -> AsyncIterator[Delivery]:
        while True:
            yield await self.deliveries.get()

    async def take(self, deliveries: Iterable[Delivery]) -> None:
        """Deliver until all are acknowledged; KilledError when the process was killed over them."""
        waiting = list(deliveries)
        for number, delivery in enumerate(waiting):
            delivery.before = waiting[:number]
            self.deliveries.put_nowait(delivery)
        task = asyncio.create_task(self.intake.run(self.coming()))  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(30):
                while not all(d.acked for d in waiting) and not task.done():  # noqa: ASYNC110
                    await asyncio.sleep(0)  # the intake runs in between
        finally:
            task.cancel()
            (error,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0]

    def completed(self) -> list[str]:
        """Ids of the updates that are ready to be folded, in order."""
        found = []
        while not self.complete.empty():
            manifest = self.complete.get_nowait()
            assert isinstance(manifest, m.UpdateManifest)
            found.append(manifest.update_id)
        return found

    def unwanted(self) -> dict[str, str]:
        """Updates that are to be refused unread, and why."""
        found = {}
        while not self.complete.empty():
            item = self.complete.get_nowait()
            assert isinstance(item, Unwanted)
            found[item.manifest.update_id] = item.reason
        return found

    def chunks(self) -> dict[str, int]:
        """Chunks that have arrived of each update that is not complete."""
        return {upload.update_id: upload.chunks for upload in self.intake.receiving()}

    def body(self, update_id: str) -> list[bytes]:
        return list(self.spool.frames(JOB, update_id, self.ledger.chunks(JOB, update_id)))


@asynccontextmanager
async def opened(folder: Path, store: Store | FullDisk | None = None) -> AsyncIterator[Desk]:
    desk = Desk(folder, store)
    with desk.ledger:
        await desk.intake.restore()
        yield desk


def frames(update_id: str, count: int = 3) -> list[bytes]:
    return [f"{update_id} frame {index}".encode() * (index + 1) for index in range(count)]


def manifest_of(job: str, update_id: str) -> m.UpdateManifest:
    return m.UpdateManifest(
        job=job,
        update_id=update_id,
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=10),
        layout_digest="1a",
        frames=1,
        body_bytes=1,
    )


def update(sequence: int = 1, site: str = "mercy", count: int = 3, **changes: Any) -> list[Delivery]:
    """The chunks of an update and its manifest, as its site sends them."""
    update_id = f"{site}:0123abcd:{sequence}"
    bodies = frames(update_id, count)
    messages: list[m.Chunk | m.UpdateManifest] = [
        m.Chunk(job=JOB, transfer=update_id, part="update", index=index, count=count, body=body)
        for index, body in enumerate(bodies)
    ]
    manifest = dataclasses.replace(manifest_of(JOB, update_id), frames=count, body_bytes=sum(map(len, bodies)))
    messages.append(dataclasses.replace(manifest, **changes))
    return [Delivery(POST.from_trainer(message, site=site), site) for message in messages]


def again(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """What the broker delivers once more: all that was not acknowledged."""
    return [Delivery(d.envelope, d.envelope.user_id) for d in deliveries if not d.acked]


def again_from(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """The same messages, published once more."""
    return [Delivery(d.envelope, d.envelope.user_id) for d in deliveries]


UPDATE = "mercy:0123abcd:1"


# ------------------------------------------------------------------ complete updates


async def test_an_update_is_complete_when_its_manifest_and_all_chunks_are_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        *chunks, manifest = update()
        await desk.take(chunks)
        assert desk.completed() == []
        assert desk.chunks() == {UPDATE: 3}
        await desk.take([manifest])
        assert desk.completed() == [UPDATE]
        assert desk.chunks() == {}
        assert desk.ledger.update_states(JOB) == {UPDATE: SPOOLED}
        assert desk.body(UPDATE) == frames(UPDATE)


async def test_everything_is_acknowledged_exactly_once_and_only_when_it_is_recorded(tmp_path: Path) -> None:
    deliveries = update()
    async with opened(tmp_path) as desk:
        await desk.take(deliveries)
        assert [d.acked for d in deliveries] == [1, 1, 1, 1]
        assert len(desk.ledger.chunks(JOB, UPDATE)) == 3


async def test_what_arrives_together_is_written_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take([*update(1), *update(2), *update(1, "ucsf")])
        assert isinstance(desk.store, Store)
        assert desk.store.calls == ["append", "record_arrivals"]
        assert sorted(desk.completed()) == ["mercy:0123abcd:1", "mercy:0123abcd:2", "ucsf:0123abcd:1"]


async def test_a_manifest_that_comes_while_its_chunks_are_synced_is_recorded_with_them(tmp_path: Path) -> None:
    # given a store during whose first write the manifest of the update arrives
    *chunks, manifest = update()
    manifest.before, arrives = chunks, [manifest]

    class Slow(Store):
        async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            result = await super().__call__(function, *args, **kwargs)
            while self.calls == ["append"] and arrives:
                desk.deliveries.put_nowait(arrives.pop())
            for _ in range(5):
                await asyncio.sleep(0)  # the link hands over what came
            return result

    async with opened(tmp_path, Slow()) as desk:
        # when its chunks are taken
        await desk.take(chunks)
        # then one write holds all of it
        assert isinstance(desk.store, Store)
        assert desk.store.calls == ["append", "record_arrivals"]
        assert desk.completed() == [UPDATE]


async def test_a_manifest_that_overtakes_its_chunks_waits_for_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        *chunks, manifest = update()
        for delivery in (manifest, chunks[2], chunks[0]):
            await desk.take([delivery])
            assert desk.completed() == []
        await desk.take([chunks[1]])
        assert desk.completed() == [UPDATE]
        assert desk.body(UPDATE) == frames(UPDATE)


async def test_an_update_that_comes_again_changes_nothing_and_its_site_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update())
        assert desk.completed() == [UPDATE]
        before = desk.spool.path(JOB, UPDATE).stat().st_size
        await desk.take(update())
        assert desk.completed() == []
        assert desk.repeated == [UPDATE]
        assert desk.spool.path(JOB, UPDATE).stat().st_size == before


async def test_copies_beyond_one_more_sending_and_what_breaks_the_protocol_are_told_as_useless(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        # given an update without its manifest, whose site sends all of it once more after a loss of its link
        *chunks, manifest = update()
        await desk.take(chunks)
        await desk.take(again_from(chunks))
        assert desk.useless == {}
        # when it sends chunks again and again, then the whole update after it was complete, then a broken message
        await desk.take(again_from(chunks * 3))
        copies = desk.useless["mercy"]
        await desk.take([manifest])
        await desk.take(update())
        again = desk.useless["mercy"]
        await desk.take([Delivery(dataclasses.replace(manifest.envelope, type="gossip"), "mercy")])
        # then all of that brought nothing
        assert copies >= 2 * len(chunks)
        assert again == copies + len(update())
        assert desk.useless["mercy"] == again + BROKEN


async def test_more_chunks_than_announced_do_not_leave_a_site_waiting_for_ever(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update(frames=2))
        assert desk.unwanted() == {
            UPDATE: f"update {UPDATE} is said to have 3 chunks, and 2: each of them says the same"
        }


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ({"body_bytes": 1}, "1 bytes by its manifest, 144 bytes came"),
        ({"body_bytes": -1}, "-1 bytes by its manifest, 144 bytes came"),
        ({"frames": 1}, "is said to have 3 chunks, and 1"),
        ({"frames": 4}, "is said to have 3 chunks, and 4"),
        ({"effort": Effort(num_examples=10, steps=-1)}, "steps must be 0 to 1000000000000, got -1"),
        ({"effort": Effort(num_examples=10, steps=2**62)}, "steps must be"),
        ({"effort": Effort(num_examples=10, seconds=-0.5)}, "seconds must be 0 to 1000000000000, got -0.5"),
        ({"effort": Effort(num_examples=10, seconds=1e300)}, "seconds must be"),
        ({"effort": Effort(num_examples=10, travel=-1.0)}, "travel must be"),
    ],
    ids=str,
)
async def test_an_update_that_is_not_what_its_manifest_says_is_refused_with_a_receipt(
    tmp_path: Path, claim: dict[str, Any], says: str
) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update(**claim))
        assert says in desk.unwanted()[UPDATE]
        await desk.take(update(2))
        assert desk.completed() == ["mercy:0123abcd:2"]


async def test_chunks_that_do_not_agree_on_how_many_there_are_make_no_update(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        first, second, third, manifest = update()
        message = POST.from_envelope(second.envelope)
        assert isinstance(message, m.Chunk)
        other = Delivery(POST.from_trainer(dataclasses.replace(message, count=7), site="mercy"), "mercy")
        await desk.take([first, other, third, manifest])
        assert [delivery for delivery, _ in desk.refused] == [other]
        assert "is said to have 3 chunks, and 7" in desk.unwanted()[UPDATE]


async def test_an_update_of_a_site_that_takes_no_part_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.strangers.add("mercy")
        await desk.take([*update(), *update(1, "ucsf")])
        assert {reason for _, reason in desk.refused} == {
            "site mercy takes no part in job heart: it sends nothing before it has accepted"
        }
        assert desk.completed() == ["ucsf:0123abcd:1"]
        assert not desk.spool.path(JOB, UPDATE).exists()


COPIES = [({"copied": True}, "has a header CC"), ({"routing_key": "lungs.mercy"}, "its own is 'heart.mercy'")]


@pytest.mark.parametrize(("copy", "says"), COPIES, ids=["CC", "BCC"])
async def test_a_copy_of_a_message_that_was_sent_elsewhere_is_refused(
    tmp_path: Path, copy: dict[str, Any], says: str
) -> None:
    async with opened(tmp_path) as desk:
        *_, manifest = update()
        copied = Delivery(dataclasses.replace(manifest.envelope, **copy), "mercy")
        await desk.take([copied, *update(2)])
        ((_, reason),) = desk.refused
        assert says in reason
        assert desk.completed() == ["mercy:0123abcd:2"]


# ------------------------------------------------------------------ what is refused


def changed_chunk(**changes: Any) -> Delivery:
    delivery = update()[0]
    message = POST.from_envelope(delivery.envelope)
    assert isinstance(message, m.Chunk)
    return Delivery(POST.from_trainer(dataclasses.replace(message, **changes), site="mercy"), "mercy")


REFUSED: list[tuple[str, Delivery, str]] = [
    ("another's login", Delivery(update()[0].envelope, "ucsf"), "came from login 'ucsf'"),
    ("another's manifest", Delivery(update()[3].envelope, "ucsf"), "site, login and job must agree"),
    ("no login", Delivery(update()[0].envelope, None), "no user_id"),
    ("another job", changed_chunk(job="lungs"), "of job lungs came from login 'mercy' on the queue of heart"),
    ("no update id", changed_chunk(transfer="4"), "is not site:incarnation:sequence"),
    ("another spelling", changed_chunk(transfer="mercy:0123abcd:01"), "is not site:incarnation:sequence"),
    ("a path", changed_chunk(transfer="../../etc:0123abcd:1"), "site '../../etc' must be"),
    ("a version", changed_chunk(part="delta"), "expected an update of at most"),
    ("too large", changed_chunk(body=bytes(CHUNK_BYTES + 65537)), "327681 bytes: expected an update of at most"),
    ("too many", changed_chunk(count=2**40), "at most 1048576 chunks"),
    ("no frames", update(frames=0)[-1], "with 0 frames: expected"),
    ("too many frames", update(frames=2**40)[-1], "1 to 1048576 frames"),
    ("unknown kind", update(kind="gift")[-1], "kind: Input should be 'delta', 'initial' or 'local'"),
    ("a long manifest", update(layout={"tensors": ["1" * 70_000]})[-1], "expected at most 65536"),
    ("garbage", Delivery(dataclasses.replace(update()[-1].envelope, body=b"{"), "mercy"), "Invalid JSON"),
    (
        "another message",
        Delivery(POST.from_site(m.Leave(site="mercy", session="s")), "mercy"),
        "Leave does not belong on the updates queue",
    ),
]


@pytest.mark.parametrize(("_", "delivery", "says"), REFUSED, ids=[name for name, _, _ in REFUSED])
async def test_what_breaks_the_protocol_is_kept_with_the_reason_and_blocks_nobody(
    tmp_path: Path, _: str, delivery: Delivery, says: str
) -> None:
    bad = Delivery(delivery.envelope, delivery.envelope.user_id)
    async with opened(tmp_path) as desk:
        await desk.take([bad, *update(2)])
        ((refused, reason),) = desk.refused
        assert refused is bad
        assert says in reason
        assert bad.acked == 1
        assert desk.completed() == ["mercy:0123abcd:2"]
        assert desk.ledger.update_states(JOB).keys() == {"mercy:0123abcd:2"}


async def test_the_largest_chunk_that_is_allowed_passes(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take([changed_chunk(body=bytes(CHUNK_BYTES + 65536))])
        assert desk.refused == []


# ------------------------------------------------------------------ a full disk


@pytest.mark.parametrize("write", ["append", "record_arrivals"])
async def test_a_full_disk_pauses_and_loses_nothing(tmp_path: Path, write: str) -> None:
    with Worker("store", Disk(), retry=timedelta(0)) as worker:
        async with opened(tmp_path, FullDisk(worker, write, tries=5)) as desk:
            await desk.take(update())
            assert desk.completed() == [UPDATE]
            # a ledger that could not be written did not make the spool grow
            assert desk.spool.path(JOB, UPDATE).stat().st_size == sum(map(len, frames(UPDATE)))


# ------------------------------------------------------------------ uploads that stop in the middle


async def test_a_site_is_asked_for_an_update_of_which_chunks_are_missing_at_growing_intervals(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        # given an update whose manifest came, and a chunk of it never
        *chunks, manifest = update()
        await desk.take([*chunks[1:], manifest])
        # when nothing comes
        asked_after = []
        for second in range(1, 60):
            await desk.after(seconds=1)
            if len(desk.asked) > len(asked_after):
                asked_after.append(second)
        # then its site is asked, less and less often
        assert asked_after == [5, 15, 35]
        assert set(desk.asked) == {UPDATE}
        # and what it sends makes the update complete
        await desk.take(update())
        await desk.after(minutes=10)
        assert desk.completed() == [UPDATE]
        assert len(desk.asked) == 3


async def test_a_site_that_is_still_sending_is_not_asked(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        *chunks, manifest = update()
        await desk.take([manifest])
        for delivery in chunks[:2]:
            await desk.after(seconds=4)
            await desk.take([delivery])
        await desk.after(seconds=4)
        await desk.take(again_from(chunks[:1]))
        await desk.after(seconds=4)
        assert desk.asked == []


async def test_after_a_restart_the_site_is_asked_as_well(tmp_path: Path) -> None:
    *chunks, manifest = update()
    async with opened(tmp_path) as desk:
        await desk.take([*chunks[1:], manifest])
    async with opened(tmp_path) as desk:
        await desk.after(seconds=5)
        assert desk.asked == [UPDATE]


async def test_an_upload_that_stopped_is_dropped_and_nothing_is_lost_when_its_site_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        # given a site that went away in the middle of an update
        *chunks, manifest = update()
        await desk.take(chunks[:2])
        await desk.after(minutes=59)
        assert desk.chunks() == {UPDATE: 2}
        # when it stays away
        await desk.after(minutes=1)
        # then nothing of the update is left, and that is said
        assert desk.chunks() == {}
        assert desk.ledger.update_states(JOB) == {}
        assert desk.ledger.chunks(JOB, UPDATE) == []
        assert not desk.spool.path(JOB, UPDATE).exists()
        assert desk.dropped == [
            f"mercy: 2 of 3 chunks of update {UPDATE} came, then nothing for 60 min: dropped; the site sends it again"
            " when it is back"
        ]
        # when the site comes back and goes on where it was
        await desk.take([chunks[2], manifest])
        assert desk.completed() == []
        # then it is asked for all of it, and the update is complete
        await desk.after(seconds=5)
        assert desk.asked == [UPDATE]
        await desk.take(update())
        assert desk.completed() == [UPDATE]
        assert desk.body(UPDATE) == frames(UPDATE)


async def test_an_update_that_was_confirmed_is_asked_for_even_when_its_bytes_were_dropped(tmp_path: Path) -> None:
    *chunks, manifest = update()
    async with opened(tmp_path) as desk:
        await desk.take([chunks[0], manifest])
        await desk.after(hours=1)
        assert not desk.spool.path(JOB, UPDATE).exists()
        assert len(desk.dropped) == 1
        await desk.after(hours=2)
        assert len(desk.dropped) == 1
        assert desk.asked == [UPDATE, UPDATE]
        assert [manifest.update_id for manifest in desk.intake.unfinished()] == [UPDATE]
    async with opened(tmp_path) as desk:
        await desk.take(update())
        assert desk.completed() == [UPDATE]
        assert desk.body(UPDATE) == frames(UPDATE)


async def test_bytes_whose_rows_were_dropped_before_a_kill_are_removed_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take([*update(1)[:1], *update(2)[:1]])
        desk.ledger.forget_updates(JOB, [UPDATE])
    async with opened(tmp_path) as desk:
        assert not desk.spool.path(JOB, UPDATE).exists()
        assert desk.chunks() == {"mercy:0123abcd:2": 1}


async def test_a_site_that_begins_too_many_updates_loses_the_one_it_left_longest_ago(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update(1, "ucsf")[:1])
        for sequence in (2, 1, *range(3, 9)):
            await desk.after(seconds=1)
            await desk.take(update(sequence)[:1])
        assert len(desk.chunks()) == 9
        await desk.take(update(9)[:1])
        assert desk.chunks().keys() == {f"mercy:0123abcd:{n}" for n in (1, *range(3, 10))} | {"ucsf:0123abcd:1"}
        assert not desk.spool.path(JOB, "mercy:0123abcd:2").exists()
        # a site that goes on like that is told of once a minute
        await desk.take([delivery for sequence in range(10, 30) for delivery in update(sequence)[:1]])
        await desk.after(seconds=1)
        await desk.take(update(30)[:1])
        await desk.after(seconds=1)
        assert desk.dropped == ["mercy: 21 updates dropped: it begins more than 8 at once"]
        await desk.after(minutes=1)
        assert desk.dropped[1:] == ["mercy: 1 update dropped: it begins more than 8 at once"]


async def test_many_whole_updates_at_once_are_no_crowd(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        sent = [update(sequence, count=1) for sequence in range(20)]
        await desk.take([chunk for chunk, _ in sent] + [manifest for _, manifest in sent])
        assert len(desk.completed()) == 20


async def test_confirmed_updates_in_a_crowd_are_refused_and_not_just_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take([delivery for sequence in range(10) for delivery in update(sequence)[1:]])
        assert desk.unwanted() == {
            f"mercy:0123abcd:{n}": "mercy has begun more than 8 updates and finished none of them" for n in (0, 1)
        }
        assert len(desk.chunks()) == 8


async def test_updates_that_miss_chunks_do_not_keep_a_site_from_sending_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take([update(sequence)[-1] for sequence in range(8)])
        *chunks, manifest = update(8)
        await desk.take(chunks)
        await desk.take([manifest])
        assert desk.completed() == ["mercy:0123abcd:8"]


async def test_a_site_that_does_not_await_its_receipts_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        sent = [delivery for sequence in range(MAX_WAITING) for delivery in update(sequence, count=1)]
        await desk.take(sent)
        await desk.take([*update(99, count=1), *update(1, "ucsf", count=1)])
        for _ in range(MAX_WAITING):
            assert isinstance(await desk.complete.get(), m.UpdateManifest)
        unwanted = await desk.complete.get()
        assert isinstance(unwanted, Unwanted)
        assert unwanted.reason == "mercy has 64 undecided updates already: a site sends one and awaits its receipt"
        assert desk.completed() == ["ucsf:0123abcd:1"]
        # and once they are decided it may send again
        await desk.take(update(100, count=1))
        assert desk.completed() == ["mercy:0123abcd:100"]


async def test_an_update_that_is_larger_than_it_can_be_is_refused_and_its_bytes_are_not_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.most_bytes = sum(map(len, frames(UPDATE)[:2]))
        *chunks, manifest = update()
        await desk.take(chunks)
        ((refused, reason),) = desk.refused
        assert refused is chunks[2]
        assert reason.startswith(f"update {UPDATE} has 144 bytes in 3 chunks: one of this job has at most 72 bytes")
        assert desk.spool.path(JOB, UPDATE).stat().st_size == desk.most_bytes
        await desk.take([manifest])
        assert desk.unwanted() == {UPDATE: reason}


async def test_an_update_that_announces_too_much_is_refused_before_it_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.most_bytes = 1 << 20
        await desk.take(update(body_bytes=1 << 21)[-1:])
        ((update_id, reason),) = desk.unwanted().items()
        assert update_id == UPDATE
        assert "has 2097152 bytes in 3 chunks: one of this job has at most 1048576 bytes" in reason


async def test_how_far_an_upload_is_can_be_asked(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update()[:2])
        desk.now += 7
        (upload,) = desk.intake.receiving()
        size = sum(map(len, frames(UPDATE)[:2]))
        assert upload == Receiving(site="mercy", update_id=UPDATE, chunks=2, count=3, body_bytes=size, age_s=7.0)


# ------------------------------------------------------------------ repetition


async def test_a_receipt_is_repeated_once_a_second_however_often_it_is_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update())
        before = list(desk.store.calls) if isinstance(desk.store, Store) else []
        for _ in range(3):
            await desk.take(again_from(update()[-1:] * 100))
        assert desk.repeated == [UPDATE]
        await desk.after(seconds=1)
        await desk.take(again_from(update()[-1:] * 100))
        assert desk.repeated == [UPDATE, UPDATE]
        assert isinstance(desk.store, Store)
        assert desk.store.calls == before


@pytest.mark.parametrize(("chunk_kib", "messages"), [(64, 64), (256, 32), (1024, 8), (4096, 2), (8192, 2)])
def test_messages_on_their_way_are_bounded_in_bytes(chunk_kib: int, messages: int) -> None:
    assert prefetch(chunk_kib * 1024) == messages


# ------------------------------------------------------------------ killed at every point

KILLS = [("before", n) for n in range(2)] + [("after", n) for n in range(2)]


@pytest.mark.parametrize(("when", "number"), KILLS)
async def test_killed_at_any_write_the_update_is_complete_exactly_once_in_the_next_life(
    tmp_path: Path, when: str, number: int
) -> None:
    deliveries = update()
    store = Store(killed_before=number) if when == "before" else Store(killed_after=number)
    async with opened(tmp_path, store) as desk:
        with pytest.raises(KilledError):
            await desk.take(deliveries)
        assert desk.completed() == []
    async with opened(tmp_path) as desk:
        await desk.take(again(deliveries))
        assert desk.completed() == [UPDATE]
        assert desk.body(UPDATE) == frames(UPDATE)


async def test_killed_after_the_last_write_the_update_waits_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take([*update(1), *update(2)])
    async with opened(tmp_path) as desk:
        assert desk.completed() == ["mercy:0123abcd:1", "mercy:0123abcd:2"]
        await desk.take(update(1))
        assert desk.completed() == []


async def test_an_update_that_a_release_before_recorded_and_did_not_mark_is_completed_at_the_start(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        found = [POST.from_envelope(delivery.envelope) for delivery in update()]
        rows = desk.spool.append(item for item in found if isinstance(item, m.Chunk))
        desk.ledger.record_arrivals(rows, [item for item in found if isinstance(item, m.UpdateManifest)], at=1.0)
        assert desk.ledger.update_states(JOB) == {UPDATE: RECEIVING}
    async with opened(tmp_path) as desk:
        assert desk.completed() == [UPDATE]
        assert desk.ledger.update_states(JOB) == {UPDATE: SPOOLED}


async def test_a_decided_update_does_not_come_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.take(update())
        desk.ledger.record_facts(JOB, [], decided={UPDATE: {}}, at=1.0)
    async with opened(tmp_path) as desk:
        assert desk.completed() == []
        await desk.take(update())
        assert desk.completed() == []
        assert desk.repeated == [UPDATE]
        assert desk.ledger.update_states(JOB) == {UPDATE: DECIDED}


async def test_a_partial_update_goes_on_where_it_was(tmp_path: Path) -> None:
    *chunks, manifest = update()
    async with opened(tmp_path) as desk:
        await desk.take([chunks[0], manifest])
    async with opened(tmp_path) as desk:
        assert desk.chunks() == {UPDATE: 1}
        await desk.take(chunks[1:])
        assert desk.completed() == [UPDATE]
        assert desk.body(UPDATE) == frames(UPDATE)


async def test_another_jobs_updates_are_not_touched(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.ledger.record_arrivals([], [manifest_of("lungs", "mercy:0123abcd:9")], at=1.0)
    async with opened(tmp_path) as desk:
        assert desk.chunks() == {}
        assert desk.completed() == []


MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of fsyncs cost nothing there


@settings(max_examples=40)
@given(data=st.data())
def test_any_order_repetition_batching_and_kills_give_each_update_once(data: st.DataObject) -> None:
    async def live(folder: Path) -> None:
        sent = [*update(1, count=2), *update(2, count=3), *update(1, "ucsf", count=1)]
        sent += [
            Delivery(d.envelope, d.envelope.user_id) for d in data.draw(st.lists(st.sampled_from(sent), max_size=8))
        ]
        waiting = data.draw(st.permutations(sent))
        for _ in range(data.draw(st.integers(0, 3))):
            try:
                async with opened(folder, Store(killed_after=data.draw(st.integers(0, 6)))) as desk:
                    while waiting:
                        size = data.draw(st.integers(1, len(waiting)))
                        await desk.take(waiting[:size])
                        waiting = waiting[size:]
            except KilledError:
                waiting = again(waiting)
        async with opened(folder) as desk:
            await desk.take(waiting)
            found = desk.completed()
            assert sorted(found) == ["mercy:0123abcd:1", "mercy:0123abcd:2", "ucsf:0123abcd:1"]
            for update_id, count in zip(sorted(found), (2, 3, 1), strict=True):
                assert desk.body(update_id) == frames(update_id, count)

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        asyncio.run(live(Path(folder)))
