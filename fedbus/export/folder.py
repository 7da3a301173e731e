"""A folder that is there whole or not at all: written beside its place, and moved there in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbus.errors import SettingsError
from fedbus.store.files import disk_errors, sync_folder


def check_place(to: Path) -> None:
    """Raise SettingsError unless a folder can be made at `to`: nothing or an empty folder is there."""
    if not to.parent.is_dir():
        raise SettingsError(f"cannot write {to}: expected a place in a folder that exists")
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise SettingsError(f"cannot write {to}: something is there; name a folder that does not exist, or is empty")


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """Yield a folder to write to; it takes its place when the context is left without an error, else it is gone.

    It has the name of `to`, for what loads it may go by that.
    """
    check_place(to)
    outer = to.parent / f".{to.name}.tmp-{os.getpid()}"
    with disk_errors("cannot write", to):
        try:
            beside = outer / to.name
            beside.mkdir(parents=True)
            yield beside
            if to.exists():
                to.rmdir()
            beside.replace(to)
            sync_folder(to.parent)
        finally:
            shutil.rmtree(outer, ignore_errors=True)
