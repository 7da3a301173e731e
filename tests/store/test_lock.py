"""One process per state folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedbus.errors import StoreError
from fedbus.store.lock import StateLock

HOLD = """
import sys
from pathlib import Path
from fedbus.store.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_id_of_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(StoreError, match=rf"is in use by process {first.pid}: stop it, or choose another folder"):
            StateLock(tmp_path).__enter__()
        first.kill()


def test_the_kernel_releases_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        first.kill()
    with StateLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        pass
    with StateLock(tmp_path):
        pass


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with child:
        with StateLock(tmp_path):
            pass
        child.kill()


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot lock"):
        StateLock(tmp_path / "gone").__enter__()
