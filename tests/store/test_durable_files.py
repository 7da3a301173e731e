"""Durable files: whole or not at all, and errors of the disk in words that help."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fedbus.errors import StoreError
from fedbus.store.files import disk_errors, drop_leftovers, make_folder, replace_durably

SmallFiles = Callable[[int], AbstractContextManager[None]]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with replace_durably(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")

    def fail() -> None:
        with replace_durably(path) as beside:
            beside.write_text("half of the ne")
            raise ValueError("the writer gave up")

    with pytest.raises(ValueError, match="the writer gave up"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, small_files: SmallFiles) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with small_files(10), pytest.raises(StoreError, match=f"cannot write {path}"), replace_durably(path) as beside:
        beside.write_text("more than ten bytes")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_dropped_and_nothing_else(tmp_path: Path) -> None:
    for name in (".state.tmp-12", ".v1.safetensors.tmp-9", "state", ".hidden", "a.tmp"):
        (tmp_path / name).write_text("x")
    drop_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "a.tmp", "state"]


def test_a_folder_is_made_with_its_parents_and_stays_empty(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "a" / "b")
    assert make_folder(path) == path
    assert list(path.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="a file is in the way"):
        make_folder(tmp_path / "file")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        make_folder(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="permission denied: give this user write access"):
        make_folder(tmp_path)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_the_disk_say_what_was_done_where_and_how_to_mend_it(number: int, says: str) -> None:
    with pytest.raises(StoreError, match=f"cannot spool /data/x: {says}"), disk_errors("cannot spool", Path("/data/x")):
        raise OSError(number, os.strerror(number))


def test_a_real_full_device_is_recognised() -> None:
    with (
        pytest.raises(StoreError, match="the disk is full"),
        disk_errors("cannot write", Path("/dev/full")),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")
