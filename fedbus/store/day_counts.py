"""What a site has used of its limits today, in one small file that survives a kill: charged before it is used.

A file that cannot be read, or that is of a later day than today, counts as a day that is used up: nobody gets a fresh
day by breaking the file or turning the clock back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path

from fedbus.store.files import disk_errors, replace_durably, replace_soon

STEPS, BYTES = "steps", "bytes"
MOST_BYTES = 1000


class DayCounts:
    """Counts of one day, in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._day: date | None = None
        self._used = {STEPS: 0, BYTES: 0}
        self._unread = False
        with disk_errors("cannot read", path):
            text = path.read_bytes()[:MOST_BYTES] if path.exists() else b""
        if text:
            self._read(text)

    def left(self, what: str, limit: int, *, today: date) -> int:
        """How much of a limit is left today, 0 when nothing is."""
        return 0 if self.trouble(today) else max(0, limit - self._used[what])

    def charge(self, what: str, amount: int, *, today: date, durably: bool = True) -> None:
        """Count something that is about to be used. Raises StoreError."""
        self._turn(today)
        self._used[what] += amount
        replaced: Callable[[Path], AbstractContextManager[Path]] = replace_durably if durably else replace_soon
        with replaced(self._path) as beside:
            beside.write_text(json.dumps({"day": str(self._day), **self._used}) + "\n")

    def trouble(self, today: date) -> str:
        """Why today counts as used up whatever was counted; empty when it does not."""
        self._turn(today)
        if self._unread:
            return f"{self._path} cannot be read: today counts as used up; delete the file and start the site anew"
        if self._day is not None and today < self._day:
            return f"{self._path} is of {self._day}, a day to come: correct the clock, or delete the file"
        return ""

    def _read(self, text: bytes) -> None:
        try:
            found = json.loads(text)
            self._day = date.fromisoformat(found["day"])
            self._used = {what: _count(found[what]) for what in self._used}
        except (ValueError, TypeError, KeyError, RecursionError):
            self._day, self._unread = None, True

    def _turn(self, today: date) -> None:
        if self._day is None:
            self._day = today
        elif today > self._day:
            self._day, self._used, self._unread = today, {STEPS: 0, BYTES: 0}, False


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("no count")
    return value
