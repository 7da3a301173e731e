"""Reading an aggregator's state folder: all that was written is seen, and nothing is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedbus.errors import StoreError
from fedbus.store.checkpoints import Checkpoints
from fedbus.store.ledger import Ledger
from fedbus.store.state_reader import LedgerReader, StateReader

SHARED_INDEX = "ledger.sqlite3-shm"  # SQLite's own: readers and writers find each other there


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The ledger of an aggregator that has ended."""
    path = tmp_path / "state" / "ledger.sqlite3"
    path.parent.mkdir()
    with Ledger(path) as ledger:
        add(ledger, "heart")
    return path


def add(ledger: Ledger, job: str) -> None:
    ledger.add_job(job, {}, message_id=job, submitted_by="me", state="running", at=0.0)


def jobs(ledger: Ledger) -> list[str]:
    return [row.job for row in ledger.jobs()]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != SHARED_INDEX}


def test_a_ledger_whose_aggregator_has_ended_is_read_and_left_as_it_was(path: Path) -> None:
    before = content(path.parent)
    with LedgerReader(path) as reader:
        assert jobs(reader) == ["heart"]
    assert content(path.parent) == before
    assert [file.name for file in path.parent.iterdir()] == ["ledger.sqlite3"]


def test_beside_a_running_aggregator_everything_committed_is_seen(path: Path) -> None:
    with Ledger(path) as ledger:
        add(ledger, "liver")
        before = content(path.parent)
        with LedgerReader(path) as reader:
            assert jobs(reader) == ["heart", "liver"]
            assert content(path.parent) == before
            add(ledger, "brain")
            assert jobs(reader) == ["heart", "liver", "brain"]


def test_what_a_killed_aggregator_left_in_the_wal_is_seen(path: Path, tmp_path: Path) -> None:
    # given: the files as they are while the aggregator works
    with Ledger(path) as ledger:
        add(ledger, "liver")
        shutil.copytree(path.parent, tmp_path / "killed")
    before = content(tmp_path / "killed")
    with LedgerReader(tmp_path / "killed" / path.name) as reader:
        assert jobs(reader) == ["heart", "liver"]
    assert content(tmp_path / "killed") == before


def test_an_aggregator_that_starts_and_ends_meanwhile_is_seen(path: Path) -> None:
    with LedgerReader(path) as reader:
        assert jobs(reader) == ["heart"]
        with Ledger(path) as ledger:
            add(ledger, "liver")
            assert jobs(reader) == ["heart", "liver"]
    with LedgerReader(path) as reader:
        with Ledger(path) as ledger:
            add(ledger, "brain")
        assert jobs(reader) == ["heart", "liver", "brain"]


def test_nothing_can_be_written(path: Path) -> None:
    with LedgerReader(path) as reader, pytest.raises(StoreError, match="cannot write ledger"):
        add(reader, "liver")


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"no ledger {tmp_path}/ledger.sqlite3: expected the state folder of an agg"):
        StateReader(tmp_path)


def test_a_file_that_is_no_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_text("dear diary, " * 1000)
    with pytest.raises(StoreError, match=r"cannot read ledger .*: file is not a database"):
        StateReader(tmp_path)


def test_checkpoints_come_oldest_first_with_the_one_in_the_archive(path: Path) -> None:
    folder = path.parent / "jobs" / "heart" / "checkpoints"
    for version in range(4):
        saved = Checkpoints(folder).save(version=version, fact_seq=version, digest="", arrays={"x": np.zeros(2, "<f4")})
        if version == 0:
            archived = path.parent / "archive" / "heart" / saved.name
            archived.parent.mkdir(parents=True)
            archived.hardlink_to(saved)
    with StateReader(path.parent) as state:
        assert [c.version for c in state.checkpoints("heart")] == [0, 2, 3]
        archived.write_bytes(b"half")
        with pytest.raises(StoreError, match=str(archived)):
            state.checkpoints("heart")
