"""The spool: bodies come back as they were, whatever was killed or full in between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fedbus.core.messages import Chunk
from fedbus.errors import StoreError
from fedbus.store.ledger import ChunkRow
from fedbus.store.spool import Spool

UPDATE, OTHER = "mercy:0123abcd:1", "ucsf:0123abcd:1"

SmallFiles = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def chunk(index: int, body: bytes, update_id: str = UPDATE) -> Chunk:
    return Chunk(job="heart", transfer=update_id, part="update", index=index, count=9, body=body)


def places(rows: list[ChunkRow], update_id: str = UPDATE) -> list[tuple[int, int, int]]:
    """As the ledger gives them: by index."""
    return sorted((row.index, row.offset, row.length) for row in rows if row.update_id == update_id)


def read(spool: Spool, rows: list[ChunkRow], update_id: str = UPDATE) -> list[bytes]:
    return list(spool.frames("heart", update_id, places(rows, update_id)))


def test_what_is_appended_is_read_back_by_index(spool: Spool) -> None:
    rows = spool.append([chunk(2, b"three"), chunk(0, b"one")])
    rows += spool.append([chunk(1, b""), chunk(3, b"four" * 1000)])
    assert read(spool, rows) == [b"one", b"", b"three", b"four" * 1000]


def test_each_row_says_whose_chunk_lies_where(spool: Spool) -> None:
    rows = spool.append([chunk(0, b"one"), chunk(1, b"two!")])
    assert rows == [
        ChunkRow(update_id=UPDATE, job="heart", site="mercy", index=0, offset=0, length=3),
        ChunkRow(update_id=UPDATE, job="heart", site="mercy", index=1, offset=3, length=4),
    ]


def test_updates_that_arrive_together_lie_apart(spool: Spool) -> None:
    rows = spool.append([chunk(0, b"a"), chunk(0, b"b", OTHER), chunk(1, b"c"), chunk(1, b"d", OTHER)])
    assert read(spool, rows) == [b"a", b"c"]
    assert read(spool, rows, OTHER) == [b"b", b"d"]


def test_bytes_of_a_crash_before_the_record_are_never_read(spool: Spool) -> None:
    # given: one recorded chunk, then half a chunk that was appended and never recorded
    rows = spool.append([chunk(0, b"one")])
    with spool.path("heart", UPDATE).open("ab") as file:
        file.write(b"tw")
    # when: the chunk comes again
    rows += spool.append([chunk(1, b"two")])
    # then
    assert read(spool, rows) == [b"one", b"two"]


def test_a_chunk_that_arrives_twice_may_be_read_from_either_place(spool: Spool) -> None:
    first, again = spool.append([chunk(0, b"one")]), spool.append([chunk(0, b"one")])
    assert read(spool, first) == read(spool, again) == [b"one"]


def test_a_spool_that_was_reopened_appends_behind_what_is_there(spool: Spool, tmp_path: Path) -> None:
    rows = spool.append([chunk(0, b"one")])
    rows += Spool(tmp_path / "spool").append([chunk(1, b"two")])
    assert read(spool, rows) == [b"one", b"two"]


def test_removed_bodies_are_gone_and_others_stay(spool: Spool) -> None:
    rows = spool.append([chunk(0, b"a"), chunk(0, b"b", OTHER)])
    spool.remove("heart", [UPDATE, UPDATE, "never:0123abcd:1"])
    assert read(spool, rows, OTHER) == [b"b"]
    with pytest.raises(StoreError, match="cannot read spooled update"):
        read(spool, rows)


def test_a_job_that_ended_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    spool.append([chunk(0, b"a"), chunk(0, b"b", OTHER)])
    spool.remove_job("heart")
    spool.remove_job("heart")
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_full_disk_is_said_in_words(spool: Spool) -> None:
    spool.append([chunk(0, b"one")])
    spool.path("heart", OTHER).symlink_to("/dev/full")
    with pytest.raises(StoreError, match="the disk is full: free some space, nothing is acknowledged until then"):
        spool.append([chunk(0, b"b", OTHER)])


def test_tries_on_a_full_disk_leave_the_files_as_they_were(spool: Spool) -> None:
    # given: two updates in one batch, the second of which does not fit
    rows = spool.append([chunk(0, b"one")])
    spool.path("heart", OTHER).symlink_to("/dev/full")
    # when: it is tried again and again
    for _ in range(3):
        with pytest.raises(StoreError):
            spool.append([chunk(1, b"two"), chunk(0, b"b", OTHER)])
    # then
    assert spool.path("heart", UPDATE).stat().st_size == 3
    assert read(spool, rows) == [b"one"]


def test_a_chunk_that_fits_only_half_leaves_the_file_as_it_was(spool: Spool, small_files: SmallFiles) -> None:
    rows = spool.append([chunk(0, b"one")])
    with small_files(5), pytest.raises(StoreError, match="cannot spool"):
        spool.append([chunk(1, b"two")])
    assert spool.path("heart", UPDATE).stat().st_size == 3
    rows += spool.append([chunk(1, b"two")])
    assert read(spool, rows) == [b"one", b"two"]
