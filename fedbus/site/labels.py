"""The labels that a site's data source has brought: how many are new to a task. Only such a count ever leaves.

A label is new to a task until a training that had loaded it has been done. The count is what the hospital has agreed to
tell; below its `min_count` it tells 0.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from fedbus.errors import StoreError
from fedbus.sources.journal import Journal, JournalFile

log = structlog.get_logger()


class Labels:
    """Of one site. `data` is its data folder, `min_count` the smallest number that is told."""

    def __init__(self, file: JournalFile, *, data: Path, min_count: int) -> None:
        self._file = file
        self._data = data
        self._min_count = min_count
        self._journal: Journal = file.read()
        # a number above the newest is of a journal that was moved away: all its labels are taken, and trained on, anew
        newest = self._journal.newest
        self._trained = {task: number for task, number in file.trained().items() if number <= newest}
        self._data_seen = False

    @property
    def newest(self) -> int:
        """The number of the newest label."""
        return self._journal.newest

    @property
    def there_are_data(self) -> bool:
        """Whether the data folder holds any file, from the source or from a person."""
        if not self._data_seen:
            self._data_seen = any(path.is_file() for path in self._data.rglob("*"))
        return self._data_seen

    def refresh(self) -> bool:
        """Read what the source has brought meanwhile; whether there is anything new. Raises StoreError."""
        before = self._journal.newest
        self._journal = self._file.read()
        return self._journal.newest > before

    def told_for(self, task: str) -> int:
        """How many labels are new to a task, as far as that is told."""
        count = self._journal.since(self._trained.get(task, 0))
        return count if count >= self._min_count else 0

    def trained(self, task: str, number: int) -> None:
        """A training has been done with all labels up to that number."""
        if number <= self._trained.get(task, 0):
            return
        self._trained[task] = number
        try:
            self._file.set_trained(self._trained)
        except StoreError as exc:
            log.warning("labels-not-noted", task=task, error=str(exc), text="after a restart they count as new again")
