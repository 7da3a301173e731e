"""The outbox: an update stays until its receipt, and its id is never given twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId, UpdateKind, UpdateManifest
from fedbus.errors import StoreError
from fedbus.store.outbox import Entry, Outbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


def manifest(update_id: UpdateId) -> UpdateManifest:
    return UpdateManifest(
        job="heart",
        update_id=str(update_id),
        kind=UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1, steps=3),
        layout_digest="1a",
        frames=1,
        body_bytes=1,
    )


def put(outbox: Outbox, *frames: bytes) -> Entry:
    """As the site does it: reserve an id, let the trainer write, commit."""
    update_id = outbox.next_id()
    outbox.frames_path(update_id).write_bytes(b"".join(frames))
    return outbox.commit(update_id, manifest(update_id), [len(f) for f in frames])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_entry_gives_its_frames_one_by_one_and_its_manifest(folder: Path) -> None:
    entry = put(Outbox(folder, "mercy"), b"one", b"", b"three")
    assert list(entry.frames()) == [b"one", b"", b"three"]
    assert entry.manifest == manifest(entry.update_id)
    assert (entry.update_id.site, entry.update_id.sequence) == ("mercy", 0)


def test_entries_survive_reopening_oldest_first(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    entries = [put(outbox, b"a"), put(outbox, b"b"), put(outbox, b"c")]
    again = Outbox(folder, "mercy")
    assert again.waiting == tuple(e.update_id for e in entries)
    assert [again.entry(e.update_id) for e in entries] == entries


def test_a_removed_entry_is_gone_for_good_and_its_files_too(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    gone, kept = put(outbox, b"a"), put(outbox, b"b")
    assert outbox.remove(gone.update_id)
    assert not outbox.remove(gone.update_id)
    assert outbox.entry(gone.update_id) is None
    assert Outbox(folder, "mercy").waiting == (kept.update_id,)
    assert files(folder) == ["00000001.frames", "00000001.json", "counter"]


def test_ids_rise_and_are_never_given_again_after_reopening(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    first, unused = outbox.next_id(), outbox.next_id()
    # killed here: the second id was reserved, nothing was written under it
    third = Outbox(folder, "mercy").next_id()
    assert [u.sequence for u in (first, unused, third)] == [0, 1, 2]
    assert first.incarnation == unused.incarnation == third.incarnation


def test_an_id_whose_entry_was_removed_is_not_given_again(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    entry = put(outbox, b"a")
    outbox.remove(entry.update_id)
    assert Outbox(folder, "mercy").next_id() != entry.update_id


def test_an_empty_folder_is_another_incarnation(tmp_path: Path) -> None:
    one, other = Outbox(tmp_path / "one", "mercy").next_id(), Outbox(tmp_path / "other", "mercy").next_id()
    assert one.sequence == other.sequence == 0
    assert one.incarnation != other.incarnation


@pytest.mark.parametrize("counter", [None, "", "nonsense", "0123abcd", "0123abcd -1", "XYZ 4", "0123abcd 4 5"])
def test_a_lost_counter_is_another_incarnation_that_leaves_old_entries_alone(folder: Path, counter: str | None) -> None:
    # given: two entries, and a counter that is gone or damaged
    outbox = Outbox(folder, "mercy")
    old = [put(outbox, b"old a"), put(outbox, b"old b")]
    (folder / "counter").unlink() if counter is None else (folder / "counter").write_text(counter)
    # when
    again = Outbox(folder, "mercy")
    new = put(again, b"new")
    # then
    assert new.update_id.incarnation != old[0].update_id.incarnation
    assert [list(e.frames()) for e in (*old, new)] == [[b"old a"], [b"old b"], [b"new"]]
    assert Outbox(folder, "mercy").waiting == (old[0].update_id, old[1].update_id, new.update_id)


def test_frames_that_were_never_committed_are_no_entry_and_are_deleted_at_the_next_start(folder: Path) -> None:
    # given: the trainer was killed while it wrote, or the site right after
    outbox = Outbox(folder, "mercy")
    kept = put(outbox, b"whole")
    outbox.frames_path(outbox.next_id()).write_bytes(b"whole, not committed")
    path = outbox.frames_path(outbox.next_id())
    path.with_name(f"{path.name}.tmp").write_bytes(b"ha")
    (folder / ".00000003.json.tmp-4711").write_text("{")
    # when
    again = Outbox(folder, "mercy")
    # then
    assert again.waiting == (kept.update_id,)
    assert files(folder) == ["00000000.frames", "00000000.json", "counter"]


def test_frames_left_behind_by_a_kill_inside_remove_are_deleted(folder: Path) -> None:
    entry = put(Outbox(folder, "mercy"), b"a")
    (folder / "00000000.json").unlink()
    assert Outbox(folder, "mercy").waiting == ()
    assert not entry.path.exists()


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", json.dumps({"update_id": "x", "manifest": {}})])
def test_an_entry_that_cannot_be_read_is_named_with_what_to_do(folder: Path, record: str) -> None:
    put(Outbox(folder, "mercy"), b"a")
    (folder / "00000000.json").write_text(record)
    with pytest.raises(StoreError, match=r"00000000\.json cannot be read: .*delete it to go on"):
        Outbox(folder, "mercy")


def test_frames_that_are_gone_are_an_error_of_the_store(folder: Path) -> None:
    entry = put(Outbox(folder, "mercy"), b"a")
    entry.path.unlink()
    with pytest.raises(StoreError, match="cannot read outbox"):
        list(entry.frames())


def test_a_full_disk_gives_out_no_id(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    put(outbox, b"a")
    (folder / "counter").unlink()
    (folder / "counter").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        outbox.next_id()


def test_update_ids_are_those_of_the_site() -> None:
    with pytest.raises(ValueError, match="site 'Mercy'"):
        UpdateId(site="Mercy", incarnation="0123abcd", sequence=0)


def test_an_update_is_always_sealed_with_one_key_that_no_other_has(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    entries = [put(outbox, b"a"), put(outbox, b"b")]

    again = [entry.key for entry in Outbox(folder, "mercy").entries()]

    assert again == [entry.key for entry in entries]
    assert len({*again}) == 2
    assert all(len(key) == 32 and key.hex() not in repr(entry) for key, entry in zip(again, entries, strict=True))
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.json")} == {0o600}


def test_an_entry_of_an_earlier_release_gets_a_key_that_stays(folder: Path) -> None:
    entry = put(Outbox(folder, "mercy"), b"a")
    record = entry.path.with_suffix(".json")
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "key"}))

    first, second = (Outbox(folder, "mercy").entries()[0] for _ in range(2))

    assert first.key == second.key != entry.key
    assert list(first.frames()) == [b"a"]


@pytest.mark.parametrize("key", ["", "00", "no hex", 7])
def test_an_entry_whose_key_is_none_cannot_be_read(folder: Path, key: object) -> None:
    record = put(Outbox(folder, "mercy"), b"a").path.with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"key": key}))

    with pytest.raises(StoreError, match="cannot be read"):
        Outbox(folder, "mercy")
