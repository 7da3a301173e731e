"""The spool: bodies come back as they were, whatever was killed or full in between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fedbus.core.protocol.messages import Chunk
from fedbus.errors import StoreError
from fedbus.store.rows import ChunkRow
from fedbus.store.spool import Bodies, Spool

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


def test_one_batch_waits_for_the_disk_once(tmp_path: Path) -> None:
    syncs: list[int] = []
    spool = Spool(tmp_path / "spool", sync=lambda fds: syncs.append(len(fds)))
    # two new files and the folder that holds them
    spool.append([chunk(0, b"a"), chunk(0, b"b", OTHER), chunk(1, b"c")])
    assert syncs == [3]
    # one file that is there already
    spool.append([chunk(2, b"d")])
    assert syncs == [3, 1]


def test_bodies_that_the_ledger_does_not_know_are_removed(spool: Spool) -> None:
    rows = spool.append([chunk(0, b"known"), chunk(0, b"forgotten", OTHER)])
    spool.remove_unknown("heart", {UPDATE, "va:0123abcd:7"})
    spool.remove_unknown("no such job", set())
    assert read(spool, rows) == [b"known"]
    assert not spool.path("heart", OTHER).exists()


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
    with pytest.raises(StoreError, match="the disk is full: free some space"):
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


# ------------------------------------------------------------------ what is kept


@pytest.fixture
def keeping(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", keep_updates=True)


def test_bodies_that_are_put_away_are_gone_unless_updates_are_kept(spool: Spool, keeping: Spool) -> None:
    spool.append([chunk(0, b"a")])
    assert spool.put_away("heart", [UPDATE, OTHER]) == [UPDATE, OTHER]
    assert spool.found("heart", UPDATE) is None
    keeping.append([chunk(0, b"a")])
    assert keeping.put_away("heart", [UPDATE, OTHER]) == [OTHER]


def test_kept_bodies_are_read_like_those_in_the_spool(keeping: Spool) -> None:
    rows = keeping.append([chunk(0, b"one"), chunk(1, b"two")])
    keeping.put_away("heart", [UPDATE])
    assert not keeping.path("heart", UPDATE).exists()
    assert keeping.found("heart", UPDATE) == keeping.archive("heart") / "mercy.0123abcd.1.frames"
    assert read(keeping, rows) == [b"one", b"two"]


def test_a_body_that_is_put_away_while_it_is_read_is_read_to_its_end(keeping: Spool) -> None:
    rows = keeping.append([chunk(0, b"one"), chunk(1, b"two")])
    frames = keeping.frames("heart", UPDATE, places(rows))
    assert next(frames) == b"one"
    keeping.put_away("heart", [UPDATE])
    assert next(frames) == b"two"


def test_putting_away_again_after_a_kill_changes_nothing(keeping: Spool) -> None:
    rows = keeping.append([chunk(0, b"a")])
    assert keeping.put_away("heart", [UPDATE]) == keeping.put_away("heart", [UPDATE]) == []
    assert read(keeping, rows) == [b"a"]


def test_what_was_kept_stays_when_updates_are_not_kept_any_more(keeping: Spool, tmp_path: Path) -> None:
    rows = keeping.append([chunk(0, b"a")])
    keeping.put_away("heart", [UPDATE])
    later = Spool(tmp_path / "spool")
    assert later.put_away("heart", [UPDATE]) == []
    assert read(later, rows) == [b"a"]


def test_an_archive_does_not_make_a_job_one_that_is_not_cleared(keeping: Spool) -> None:
    rows = keeping.append([chunk(0, b"a")])
    keeping.put_away("heart", [UPDATE])
    assert keeping.holds("heart")
    keeping.remove_job("heart")
    assert not keeping.holds("heart")
    assert read(keeping, rows) == [b"a"]


def test_only_the_first_checkpoint_is_kept_and_may_be_written_anew(
    spool: Spool, keeping: Spool, tmp_path: Path
) -> None:
    first, second = tmp_path / "v00000000.safetensors", tmp_path / "v00000007.safetensors"
    first.write_bytes(b"version 0")
    second.write_bytes(b"version 7")
    spool.keep_start("heart", first)
    assert not spool.archive("heart").exists()
    # when: the first one is kept, then written anew after a kill, and others come
    keeping.keep_start("heart", first)
    first.unlink()
    first.write_bytes(b"version 0 anew")
    keeping.keep_start("heart", first)
    keeping.keep_start("heart", second)
    # then
    assert {path.name: path.read_bytes() for path in keeping.archive("heart").iterdir()} == {
        "v00000000.safetensors": b"version 0 anew"
    }


def test_looking_for_bodies_makes_no_folder(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path / "spool")
    assert bodies.found("heart", UPDATE) is None
    with pytest.raises(StoreError, match=r"cannot read spooled update .*/spool/heart/mercy.0123abcd.1.frames"):
        list(bodies.frames("heart", UPDATE, [(0, 0, 1)]))
    assert list(tmp_path.iterdir()) == []
