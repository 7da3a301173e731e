"""Deletes what a site keeps of jobs, keys and models: `fedbus site forget`.

What stays in the state folder: the audit log, the marker that the site was stopped, what it has used of today's limits
(so that nobody gets a fresh day), and the lock. The kit stays: its certificate and key are the site's login.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from fedbus.errors import SettingsError, StoreError
from fedbus.site.cage import temporary_folder
from fedbus.site.rules import COUNTS_FILE
from fedbus.site.stopping import MARKER, stop
from fedbus.store.audit import FOLDER, AuditLog
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import Entry
from fedbus.store.lock import StateLock, holder_of

KEPT = frozenset({FOLDER, MARKER, COUNTS_FILE, "lock"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or folder that goes, or would."""

    path: Path
    size_bytes: int


def what_goes(state: Path) -> list[Item]:
    """What `forget` would delete. Raises SettingsError when there is no such folder."""
    if not state.is_dir():
        raise SettingsError(f"no site works in {state}: give its --name, or its --state-dir")
    found = [path for path in sorted(state.iterdir()) if path.name not in KEPT]
    paths = dict.fromkeys((*found, temporary_folder(state)))
    return [Item(path=path, size_bytes=_size(path)) for path in paths if os.path.lexists(path)]


def forget(state: Path, site: str) -> tuple[list[Item], str]:
    """Delete it; a daemon that runs is stopped first, at once. What was deleted, and what was done to the daemon.

    Raises StoreError naming what could not be deleted; all else is then gone.
    """
    stopped = stop(state, site, now=True) if holder_of(state) is not None else ""
    with StateLock(state):
        items, troubles = what_goes(state), []
        for item in items:
            troubles += _delete(item.path)
        facts = {"bytes": sum(item.size_bytes for item in items), "uid": os.getuid()}
        AuditLog(state / FOLDER).append([Entry(kind=Kind.FORGET, at=time.time(), facts=facts)])
    if troubles:
        raise StoreError("\n".join(["not everything could be deleted:", *troubles]))
    return items, stopped


def _delete(path: Path) -> list[str]:
    troubles: list[str] = []

    def note(function: object, name: str, info: tuple[object, BaseException, object]) -> None:
        troubles.append(f"  {name}: {getattr(info[1], 'strerror', None) or info[1]}")

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=note)
        return troubles
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        troubles.append(f"  {path}: {exc.strerror}")
    return troubles


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if one.is_file() and not one.is_symlink())
