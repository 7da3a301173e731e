"""Which versions of a job are on the aggregator's disk, and how to read one: `last`, `best` or a number.

last   the export of a job that has ended with one; the newest checkpoint otherwise
best   the best version that was scored, as far as there is one by now
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fedbus.aggregator.model.params_bytes import OfCheckpoint, OfFile, ParamsBytes
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import JobState
from fedbus.errors import StoreError
from fedbus.store.rows import JobRow

TRIES = 3  # a running job replaces its files; the next look finds the new ones
SHOWN = 20


class KeptVersions:
    """Of one job, in `folder`, as they are when this is made."""

    def __init__(self, folder: Path, row: JobRow) -> None:
        self._row = row
        result: Mapping[str, object] = row.result or {}
        self._checkpoints = _by_version(folder / "checkpoints")
        self._files = _by_version(folder / "best")
        final, of_final = folder / "final.safetensors", result.get("version")
        self._final = of_final if isinstance(of_final, int) and final.exists() else None
        if self._final is not None:
            self._files[self._final] = final
        self._best = _best(folder, result, ended=JobState(row.state).ended)

    def open(self, wanted: object) -> tuple[int, ParamsBytes]:
        """The version that is wanted and its params. StoreError says which there are instead."""
        version = self._version(wanted)
        if (path := self._files.get(version)) is not None:
            return version, OfFile(path)
        if (path := self._checkpoints.get(version)) is None or self._row.layout is None:
            raise StoreError(f"version {version} of {self._row.job} is not kept; {self._there()}")
        return version, OfCheckpoint(path, Layout.from_dict(self._row.layout), job=self._row.job)

    def _version(self, wanted: object) -> int:
        if not self._all:
            if JobState(self._row.state).ended:
                raise StoreError(f"job {self._row.job} has left no params: it is {self._row.state}")
            raise StoreError(f"job {self._row.job} has no params yet, it is {self._row.state}: ask again later")
        if wanted == "last":
            return self._final if self._final is not None else max(self._checkpoints or self._all)
        if wanted == "best":
            if self._best is None:
                raise StoreError(f"no version of {self._row.job} has a score that makes it the best; {self._there()}")
            return self._best
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            return wanted
        raise StoreError("expected a version: best, last or the number of one")

    @property
    def _all(self) -> list[int]:
        return sorted({*self._files, *self._checkpoints})

    def _there(self) -> str:
        return f"kept are: {', '.join(map(str, self._all[-SHOWN:]))}; ask for one of those, or for `last`"


def open_version(folder: Path, row: JobRow, wanted: object) -> tuple[int, ParamsBytes]:
    """What `KeptVersions.open` finds, also while the job writes new versions."""
    for _ in range(TRIES - 1):
        with suppress(StoreError):
            return KeptVersions(folder, row).open(wanted)
    return KeptVersions(folder, row).open(wanted)


def _by_version(folder: Path) -> dict[int, Path]:
    return {int(path.stem.removeprefix("v")): path for path in folder.glob("v*.safetensors")}


def _best(folder: Path, result: Mapping[str, object], *, ended: bool) -> int | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = result["best"] if ended else json.loads((folder / "best" / "best.json").read_text())
        return int(note["version"])  # type: ignore[index]
    return None
