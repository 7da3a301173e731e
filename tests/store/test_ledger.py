"""The ledger: what it remembers, once, in order, whatever is killed."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId, UpdateKind, UpdateManifest
from fedbus.core.rules.facts import Committed, Folded
from fedbus.errors import IdTakenError, StoreError
from fedbus.store.ledger import DECIDED, RECEIVING, SPOOLED, Ledger
from fedbus.store.rows import ChunkRow, FollowUp

UPDATE = "mercy:0123abcd:1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def chunk(index: int, update_id: str = UPDATE, *, offset: int = 0) -> ChunkRow:
    return ChunkRow(update_id=update_id, job="heart", site="mercy", index=index, offset=offset, length=10)


def folded(weight: float = 1.0) -> Folded:
    return Folded(
        update_id=UpdateId.parse(UPDATE),
        base_version=0,
        num_examples=1,
        staleness=0,
        weight=weight,
        clip=1.0,
        norm=1.0,
        at=0.5,
    )


def committed(version: int = 1) -> Committed:
    return Committed(version=version, update_ids=(UpdateId.parse(UPDATE),), normaliser=1.0, reason="full", at=0.5)


def manifest(update_id: str = UPDATE, job: str = "heart", *, text: str = "text") -> UpdateManifest:
    """One that is told from others by its layout digest."""
    return UpdateManifest(
        job=job,
        update_id=update_id,
        kind=UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest=text,
        frames=1,
        body_bytes=10,
    )


def texts(manifests: list[UpdateManifest]) -> list[str]:
    return [manifest.layout_digest for manifest in manifests]


def submit(ledger: Ledger, job: str = "heart", *, message_id: str = "m1", at: float = 1.0) -> str:
    return ledger.add_job(
        job, {"name": job, "seed": 1}, message_id=message_id, submitted_by="ana", state="submitted", at=at
    )


def as_left_by_kill(path: Path, beside: Path) -> Path:
    """The files as a SIGKILL leaves them: the write-ahead log not checkpointed, nothing closed."""
    beside.mkdir()
    for part in path.parent.glob(f"{path.name}*"):
        shutil.copy(part, beside / part.name)
    return beside / path.name


# ------------------------------------------------------------------ jobs


def test_a_job_is_read_back_as_it_was_submitted(ledger: Ledger) -> None:
    submit(ledger)
    (row,) = ledger.jobs()
    assert (row.job, row.spec, row.state) == ("heart", {"name": "heart", "seed": 1}, "submitted")
    assert (row.submitted_by, row.submitted_at) == ("ana", 1.0)
    assert (row.reason, row.layout, row.started_at, row.ended_at, row.result) == ("", None, None, None, None)


def test_a_submit_that_came_twice_is_one_job(ledger: Ledger) -> None:
    assert submit(ledger, "heart") == "heart"
    assert submit(ledger, "heart-again", message_id="m1") == "heart"
    assert [row.job for row in ledger.jobs()] == ["heart"]


def test_a_job_id_that_is_taken_stays_with_its_first_spec(ledger: Ledger) -> None:
    submit(ledger, message_id="m1")
    with pytest.raises(IdTakenError, match="a job heart already"):
        ledger.add_job("heart", {"seed": 2}, message_id="m2", submitted_by="eve", state="submitted", at=2.0)
    (row,) = ledger.jobs()
    assert (row.spec, row.submitted_by) == ({"name": "heart", "seed": 1}, "ana")


def test_jobs_come_oldest_first(ledger: Ledger) -> None:
    submit(ledger, "late", message_id="m1", at=3.0)
    submit(ledger, "early", message_id="m2", at=2.0)
    submit(ledger, "also-late", message_id="m3", at=3.0)
    assert [row.job for row in ledger.jobs()] == ["early", "late", "also-late"]


def test_columns_of_a_job_change_and_mappings_come_back_as_mappings(ledger: Ledger) -> None:
    submit(ledger)
    submit(ledger, "other", message_id="m2")
    ledger.set_job("heart", state="running", layout={"tensors": []}, result={"auc": 0.5}, started_at=2.0)
    heart, other = ledger.jobs()
    assert (heart.state, heart.layout, heart.result, heart.started_at) == (
        "running",
        {"tensors": []},
        {"auc": 0.5},
        2.0,
    )
    assert other.state == "submitted"


def test_a_column_that_may_not_change_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="columns must be of"):
        ledger.set_job("heart", spec={})


@pytest.mark.parametrize("taken", [False, True])
def test_a_job_ends_in_one_write_with_the_one_that_follows(taken: bool, ledger: Ledger) -> None:
    submit(ledger)
    if taken:
        submit(ledger, "after-1", message_id="m2")
    follow_up = FollowUp(job="after-1", spec={"name": "after"}, state="submitted")
    ledger.end_job("heart", state="finished", reason="done", result={"auc": 0.5}, at=9.0, follow_up=follow_up)
    heart, after = ledger.jobs()
    assert (heart.state, heart.reason, heart.result, heart.ended_at) == ("finished", "done", {"auc": 0.5}, 9.0)
    # a job of that id stays as it was
    assert after.spec == ({"name": "after-1", "seed": 1} if taken else {"name": "after"})
    assert (after.state, after.submitted_by, after.submitted_at) == ("submitted", "ana", 1.0 if taken else 9.0)


# ------------------------------------------------------------------ updates


def test_a_chunk_that_came_twice_keeps_its_first_place(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(0, offset=0), chunk(1, offset=10)], [], at=1.0)
    ledger.record_arrivals([chunk(1, offset=500)], [], at=2.0)
    assert ledger.chunks("heart", UPDATE) == [(0, 0, 10), (1, 10, 10)]


def test_chunks_are_listed_by_index_whatever_order_they_came_in(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(2, offset=0), chunk(0, offset=10), chunk(1, offset=20)], [], at=1.0)
    assert [index for index, _, _ in ledger.chunks("heart", UPDATE)] == [0, 1, 2]


def test_a_manifest_that_came_twice_keeps_its_first_text(ledger: Ledger) -> None:
    ledger.record_arrivals([], [manifest(UPDATE, "heart", text="first")], at=1.0)
    ledger.record_arrivals([], [manifest(UPDATE, "heart", text="second")], at=1.0)
    assert texts(ledger.manifests("heart", RECEIVING)) == ["first"]


def test_an_update_goes_from_receiving_to_spooled_to_decided(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(0)], [manifest(UPDATE, "heart", text="text")], at=1.0)
    assert ledger.update_states("heart") == {UPDATE: RECEIVING}
    ledger.record_arrivals([], [], complete=[("heart", UPDATE)], at=2.0)
    assert ledger.update_states("heart") == {UPDATE: SPOOLED}
    ledger.record_facts("heart", [folded()], decided={UPDATE: {}}, at=3.0)
    assert ledger.update_states("heart") == {UPDATE: DECIDED}
    assert ledger.update_states("other") == {}


def test_a_decided_update_is_never_spooled_or_received_again(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(0)], [manifest(UPDATE, "heart", text="text")], at=1.0)
    ledger.record_facts("heart", [], decided={UPDATE: {}}, at=2.0)
    ledger.record_arrivals([], [], complete=[("heart", UPDATE)], at=3.0)
    ledger.record_arrivals([chunk(0)], [manifest(UPDATE, "heart", text="text")], at=4.0)
    assert ledger.update_states("heart") == {UPDATE: DECIDED}


def test_a_decided_update_keeps_its_receipt(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(0)], [], at=1.0)
    assert ledger.receipt("heart", UPDATE) is None
    ledger.record_facts("heart", [], decided={UPDATE: {"outcome": "refused", "reason": "stale"}}, at=2.0)
    assert ledger.receipt("heart", UPDATE) == {"outcome": "refused", "reason": "stale"}
    assert ledger.receipt("heart", "mercy:0123abcd:9") is None


def test_complete_updates_wait_in_the_order_in_which_they_became_complete(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.record_arrivals([], [manifest(f"mercy:0123abcd:{number}", "heart", text=f"text {number}")], at=1.0)
    ledger.record_arrivals([], [], complete=[("heart", "mercy:0123abcd:3")], at=2.0)
    ledger.record_arrivals([], [], complete=[("heart", "mercy:0123abcd:1"), ("heart", "mercy:0123abcd:2")], at=3.0)
    assert texts(ledger.manifests("heart", SPOOLED)) == ["text 3", "text 1", "text 2"]


def test_the_places_of_bodies_that_are_gone_are_forgotten(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(0), chunk(0, "mercy:0123abcd:2")], [], at=1.0)
    ledger.forget_chunks("heart", [UPDATE])
    assert ledger.chunks("heart", UPDATE) == []
    assert len(ledger.chunks("heart", "mercy:0123abcd:2")) == 1


# ------------------------------------------------------------------ facts and versions


def test_of_an_incomplete_update_that_is_forgotten_only_the_manifest_stays(ledger: Ledger) -> None:
    # given an update without its manifest, one that lacks chunks, and one that is complete
    begun, lacking, whole = UPDATE, "mercy:0123abcd:2", "mercy:0123abcd:3"
    chunks = [chunk(0, update_id) for update_id in (begun, lacking, whole)]
    ledger.record_arrivals(chunks, [manifest(u, "heart", text="{}") for u in (lacking, whole)], at=1.0)
    ledger.record_arrivals([], [], complete=[("heart", whole)], at=2.0)
    # when all are to be forgotten
    ledger.forget_updates("heart", [begun, lacking, whole])
    # then the first was never there, the second has nothing but its manifest, and the third is not touched
    assert ledger.update_states("heart") == {lacking: RECEIVING, whole: SPOOLED}
    assert texts(ledger.manifests("heart", RECEIVING)) == ["{}"]
    assert [len(ledger.chunks("heart", u)) for u in (begun, lacking, whole)] == [0, 0, 1]


def test_facts_come_in_the_order_they_were_recorded_with_rising_numbers(ledger: Ledger) -> None:
    first = ledger.record_facts("heart", [folded(0.1), folded(1 / 3)], at=1.0)
    ledger.record_facts("lungs", [folded()], at=1.5)
    last = ledger.record_facts("heart", [committed(1)], at=2.0)
    facts = ledger.facts("heart")
    assert [row.fact for row in facts] == [folded(0.1), folded(1 / 3), committed(1)]
    assert [fact.seq for fact in facts] == [first - 1, first, last]
    assert [fact.at for fact in facts] == [1.0, 1.0, 2.0]


def test_facts_after_a_checkpoint_are_those_with_a_higher_number(ledger: Ledger) -> None:
    covered = ledger.record_facts("heart", [folded()], at=1.0)
    last = ledger.record_facts("heart", [committed()], at=2.0)
    assert [fact.seq for fact in ledger.facts("heart", after=covered)] == [last]
    assert ledger.facts("heart", after=last) == []


def test_deciding_without_a_fact_still_gives_a_number_that_covers_all(ledger: Ledger) -> None:
    last = ledger.record_facts("heart", [folded()], at=1.0)
    assert ledger.record_facts("heart", [], decided={UPDATE: {}}, at=2.0) == last


def test_the_last_published_version_is_the_highest_and_minus_one_before_any(ledger: Ledger) -> None:
    assert ledger.last_published("heart") == -1
    for version in (0, 1, 2, 2, 1):
        ledger.mark_published("heart", version, at=1.0)
    assert ledger.last_published("heart") == 2
    assert ledger.last_published("lungs") == -1


# ------------------------------------------------------------------ durable, atomic, safe


def test_the_chunks_of_a_job_that_ended_are_forgotten_and_those_of_others_stay(ledger: Ledger) -> None:
    other = ChunkRow(update_id="mercy:0123abcd:2", job="lungs", site="mercy", index=0, offset=0, length=1)
    ledger.record_arrivals([chunk(0), other], [], at=1.0)
    ledger.forget_job_chunks("heart")
    assert ledger.chunks("heart", UPDATE) == []
    assert len(ledger.chunks("lungs", "mercy:0123abcd:2")) == 1


def test_an_error_in_the_middle_leaves_nothing_of_the_call(ledger: Ledger) -> None:
    ledger.record_arrivals([chunk(0)], [], at=1.0)
    unstorable: Any = object()
    bad = [folded(), folded(unstorable)]
    with pytest.raises(TypeError):
        ledger.record_facts("heart", bad, decided={UPDATE: {}}, at=2.0)
    assert ledger.facts("heart") == []
    assert ledger.update_states("heart") == {UPDATE: RECEIVING}


def test_a_call_that_failed_does_not_block_the_next(ledger: Ledger) -> None:
    unstorable: Any = object()
    with pytest.raises(StoreError, match="cannot write ledger"):
        ledger.mark_published("heart", unstorable, at=1.0)
    ledger.mark_published("heart", 0, at=1.0)
    assert ledger.last_published("heart") == 0


def test_everything_written_survives_a_kill(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    submit(ledger)
    ledger.record_arrivals([chunk(0)], [manifest(UPDATE, "heart", text="text")], at=1.0)
    ledger.record_facts("heart", [folded(0.5)], decided={UPDATE: {}}, at=2.0)
    ledger.mark_published("heart", 3, at=3.0)
    with Ledger(as_left_by_kill(path, tmp_path / "copy")) as again:
        assert [row.job for row in again.jobs()] == ["heart"]
        assert again.update_states("heart") == {UPDATE: DECIDED}
        assert [row.fact for row in again.facts("heart")] == [folded(0.5)]
        assert again.last_published("heart") == 3
        assert submit(again, "heart-2") == "heart"


def test_a_kill_inside_a_transaction_leaves_nothing_of_it(path: Path, tmp_path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.record_facts("heart", [folded()], at=1.0)
        open_ = sqlite3.connect(path, isolation_level=None)
        open_.execute("BEGIN IMMEDIATE")
        open_.execute("INSERT INTO facts (job, kind, body, at) VALUES ('heart', 'committed', '{}', 2.0)")
        copy = as_left_by_kill(path, tmp_path / "copy")
        open_.close()
    with Ledger(copy) as again:
        assert [row.fact for row in again.facts("heart")] == [folded()]


def test_every_commit_is_synced(ledger: Ledger, path: Path) -> None:
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._file.rows("PRAGMA synchronous") == [(2,)]


def test_numbers_of_facts_never_fall_after_a_reopening(path: Path) -> None:
    with Ledger(path) as ledger:
        last = ledger.record_facts("heart", [folded()], at=1.0)
    with Ledger(path) as ledger:
        assert ledger.record_facts("heart", [folded()], at=1.0) == last + 1


def test_a_ledger_of_another_release_is_refused_and_left_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=9")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="has schema 9, this release reads 1 to 3: upgrade fedbus"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"somebody's notes, longer than the header of a database" * 10)
    with pytest.raises(StoreError, match="is it a fedbus ledger and may this user write it"):
        Ledger(path)


def test_a_ledger_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open ledger"):
        Ledger(tmp_path / "gone" / "ledger.sqlite3")


def test_two_threads_write_without_losing_anything(ledger: Ledger) -> None:
    errors: list[BaseException] = []

    def record(job: str) -> None:
        try:
            for number in range(40):
                ledger.record_facts(job, [folded(number + 1.0), committed(number + 1)], at=1.0)
                assert len(ledger.facts(job)) == 2 * number + 2
        except BaseException as exc:  # noqa: BLE001 handed to the test's own thread
            errors.append(exc)

    threads = [threading.Thread(target=record, args=(job,)) for job in ("heart", "lungs")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for job in ("heart", "lungs"):
        facts = ledger.facts(job)
        assert [row.fact for row in facts] == [f for n in range(40) for f in (folded(n + 1.0), committed(n + 1))]
        assert all(b.seq == a.seq + 1 for a, b in zip(facts[::2], facts[1::2], strict=True))


# ------------------------------------------------------------------ one id in two jobs


def test_an_update_id_in_two_jobs_is_two_updates(ledger: Ledger) -> None:
    # given an update of one job, and chunk and manifest of the same id in another
    other = ChunkRow(update_id=UPDATE, job="lungs", site="mercy", index=1, offset=99, length=3)
    ledger.record_arrivals([chunk(0)], [manifest(UPDATE, "heart", text="of heart")], at=1.0)
    ledger.record_arrivals([other], [manifest(UPDATE, "lungs", text="of lungs")], at=1.0)
    # when one is decided and its body is dropped
    ledger.record_arrivals([], [], complete=[("lungs", UPDATE)], at=2.0)
    ledger.record_facts("lungs", [], decided={UPDATE: {"outcome": "refused"}}, at=2.0)
    ledger.forget_chunks("lungs", [UPDATE])
    # then nothing of the other one has changed
    assert ledger.chunks("heart", UPDATE) == [(0, 0, 10)]
    assert ledger.chunks("lungs", UPDATE) == []
    assert (ledger.update_states("heart"), ledger.receipt("heart", UPDATE)) == ({UPDATE: RECEIVING}, None)
    assert ledger.receipt("lungs", UPDATE) == {"outcome": "refused"}
    ledger.forget_updates("lungs", [UPDATE])
    ledger.forget_job_chunks("lungs")
    assert texts(ledger.manifests("heart", RECEIVING)) == ["of heart"]
    assert ledger.chunks("heart", UPDATE) == [(0, 0, 10)]


def test_a_job_is_found_by_its_id_and_the_endings_of_many_at_once(ledger: Ledger) -> None:
    submit(ledger)
    ledger.set_job("heart", state="finished", reason="version 3 of 3 is there")
    row = ledger.job("heart")
    assert row is not None
    assert (row.job, row.state) == ("heart", "finished")
    assert ledger.job("lungs") is None
    assert ledger.endings(["lungs", "heart"]) == {"heart": ("finished", "version 3 of 3 is there")}


def test_who_accepted_a_job_is_kept_for_each_job(ledger: Ledger, path: Path) -> None:
    for _ in range(2):
        ledger.add_participant("heart", "mercy", at=1.0)
    ledger.add_participant("lungs", "ucsf", at=1.0)
    with Ledger(path) as again:
        assert again.participants("heart") == {"mercy"}
        assert again.participants("brain") == frozenset()
