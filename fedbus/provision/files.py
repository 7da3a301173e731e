"""Files of a federation's folder: written whole or not at all, only where they would change, keys 0600 at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fedbus.store.files import disk_errors, replace_durably

PRIVATE, PUBLIC = 0o600, 0o644


def put(path: Path, content: bytes | str, *, mode: int = PUBLIC) -> bool:
    """Write a file unless it is there already, like this; True when it was written. StoreError of the disk."""
    data = content.encode() if isinstance(content, str) else content
    if present(path) == data and stat.S_IMODE(path.stat().st_mode) == mode:
        return False
    with disk_errors("cannot write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replace_durably(path) as beside:
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever this user's umask is
            file.write(data)
    return True


def put_once(path: Path, content: bytes | str) -> bool:
    """Write a file that is somebody's to change afterwards: one that is there stays as it is."""
    return False if path.exists() else put(path, content)


def present(path: Path) -> bytes | None:
    """The content of a file; None when there is none."""
    try:
        with disk_errors("cannot read", path):
            return path.read_bytes() if path.exists() else None
    except FileNotFoundError:
        return None


def take_away(path: Path) -> None:
    with disk_errors("cannot delete", path):
        path.unlink(missing_ok=True)
