"""Backups: what they hold, and what is refused."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest

from fedbus.errors import StoreError
from fedbus.store.backup import back_up
from fedbus.store.ledger import Ledger
from fedbus.store.restore import restore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with a ledger, a key and a file of a job."""
    made = tmp_path / "state"
    (made / "jobs" / "one").mkdir(parents=True)
    (made / "jobs" / "one" / "final.safetensors").write_bytes(b"params")
    (made / "seal.key").write_bytes(b"key")
    (made / "lock").write_text("1\n")
    Ledger(made / "ledger.sqlite3").__exit__()
    return made


@pytest.fixture
def backup(folder: Path, tmp_path: Path) -> Path:
    back_up(folder, tmp_path / "b.tar", release="0.1.0", at=1.0)
    return tmp_path / "b.tar"


def again(backup: Path, tmp_path: Path) -> Path:
    restore(backup, tmp_path / "new", renamed=lambda job, log: log, at=2.0)
    return tmp_path / "new"


def test_what_is_restored_is_what_was_there_and_its_owners_alone(backup: Path, tmp_path: Path) -> None:
    new = again(backup, tmp_path)
    files = {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}
    assert files == {"ledger.sqlite3", "seal.key", "jobs/one/final.safetensors"}
    private = (backup, new, *(path for path in new.rglob("*") if path.is_file()))
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_a_folder_that_is_none_and_a_file_inside_it_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected the state folder"):
        back_up(tmp_path, tmp_path / "b.tar", release="0", at=1.0)
    with pytest.raises(StoreError, match="lies in the state folder"):
        back_up(folder, folder / "b.tar", release="0", at=1.0)
    with pytest.raises(StoreError, match="there is no folder"):
        back_up(folder, tmp_path / "no" / "b.tar", release="0", at=1.0)


def test_nothing_is_restored_over_what_is_there(backup: Path, folder: Path) -> None:
    with pytest.raises(StoreError, match="not empty"):
        restore(backup, folder, renamed=lambda job, log: log, at=2.0)
    assert (folder / "seal.key").read_bytes() == b"key"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"params", b"poison"), "checksums"),
        (lambda data: data[: len(data) // 3], "cut short"),
        (lambda data: b"not a tar at all" * 100, "no backup"),
        (lambda data: b"", "no backup"),
    ],
    ids=["changed", "cut", "something else", "empty"],
)
def test_a_damaged_file_leaves_nothing_behind(backup: Path, tmp_path: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    backup.write_bytes(change(backup.read_bytes()))
    with pytest.raises(StoreError, match=said):
        again(backup, tmp_path)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


def tar_of(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def head(**changes: object) -> tuple[tarfile.TarInfo, bytes]:
    data = {"format": 1, "fedbus": "0.1.0", "schema": 3, "at": 1.0, "jobs": []} | changes
    return tarfile.TarInfo("backup.json"), json.dumps(data).encode()


@pytest.mark.parametrize("name", ["../out", "/etc/x", "jobs/../../out", "jobs//x", "a\nb", ".hidden"])
def test_an_entry_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tar_of(tmp_path / "b.tar", [head(), (tarfile.TarInfo(name), b"x")])
    with pytest.raises(StoreError, match="no backup has"):
        again(path, tmp_path)
    assert not (tmp_path.parent / "out").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("jobs")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with pytest.raises(StoreError, match="no backup has"):
        again(tar_of(tmp_path / "b.tar", [head(), (link, b"")]), tmp_path)


def test_another_schema_is_said_with_both_numbers(tmp_path: Path, backup: Path) -> None:
    with pytest.raises(StoreError, match=r"schema 9, this release reads 1 to 3: upgrade fedbus"):
        again(tar_of(tmp_path / "b.tar", [head(schema=9)]), tmp_path)
    with pytest.raises(StoreError, match=r"format 7, this release reads 1: upgrade fedbus"):
        again(tar_of(tmp_path / "b.tar", [head(format=7)]), tmp_path)


def test_a_body_that_the_ledger_needs_and_that_is_gone_is_no_backup(folder: Path, tmp_path: Path) -> None:
    with sqlite3.connect(folder / "ledger.sqlite3") as db:
        db.execute("INSERT INTO chunks VALUES ('one', 'mercy:1:1', 0, 0, 10)")
    with pytest.raises(StoreError, match=r"the body of mercy:1:1"):
        back_up(folder, tmp_path / "b.tar", release="0", at=1.0)
    assert not (tmp_path / "b.tar").exists()
    assert not (folder / ".backup").exists()
