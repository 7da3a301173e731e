"""The best version so far, kept on disk: what a job leaves behind when its last version is not the best one, or none.

Sites score a version when later ones exist, and its params are gone from memory then. So every version is written when
it is made, as far as that costs next to nothing, and dropped when a score says that it is not the best:

    time     at most a tenth of it: after a write of t seconds comes none for 10 t
    disk     the best, and MOST_WAITING versions or WAITING_BYTES that wait for a score; at least one
    lag      when scores come so late that they would all be dropped before, fewer are written, to wait for longer

`scores.Trend` decides, over the versions that were kept. The best survives a restart, those that wait do not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedbus.core.job.scores import Better, Trend
from fedbus.errors import StoreError
from fedbus.store.files import drop_leftovers, make_folder, replace_durably, sync_file

MOST_WAITING = 8
WAITING_BYTES = 256 << 20
PAUSE_TIMES = 10.0

Write = Callable[[Path], None]
"""Writes the params of the newest version to a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """A version, its mean of the ranking metric, and the file with its params."""

    version: int
    value: float
    path: Path


class BestVersions:
    """Of one job, in `folder`, which is its own. Runs on the compute thread; nothing here is safe to use from two."""

    def __init__(self, folder: Path, *, better: Better, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._trend = Trend(better)
        self._waiting: list[int] = []
        self._offered = -1
        self._lag = 0
        self._bytes = 0
        self._not_before = 0.0
        self._take_up()

    @property
    def best(self) -> Best | None:
        """The best of those that were kept and scored; None before there is one."""
        found = self._trend.best
        return None if found is None else Best(version=found[0], value=found[1], path=self._path(found[0]))

    def wants(self, version: int) -> bool:
        """Whether a version that was just made is to be written."""
        if version <= self._offered or self._clock() < self._not_before:
            return False
        last = self._waiting[-1] if self._waiting else None
        return last is None or version - last >= 1 + self._lag // max(1, self._most - 1)

    def keep(self, version: int, write: Write) -> None:
        """Write a version, the newest one; the one that has waited longest makes room."""
        began = self._clock()
        self._offered = version
        with suppress(StoreError):  # a job does not stand still for a file that it may not need
            if not self._folder.exists():
                make_folder(self._folder)
            write(self._path(version))
            self._bytes = self._path(version).stat().st_size
            self._waiting.append(version)
            self._drop_but({*self._waiting[-self._most :], *self._trend.candidates})
        now = self._clock()
        self._not_before = now + PAUSE_TIMES * (now - began)

    def scored(self, version: int, mean: float | None, *, newest: int) -> None:
        """A version was scored; `mean` None: it is of no use somewhere. `newest`: the newest version by now."""
        self._lag = max(0, newest - version)
        if version in self._waiting or version in self._trend.candidates:
            before = self._trend.best
            self._trend.add(version, mean)
            if self._trend.best != before:
                self._write_down()
        self._drop_but({*(kept for kept in self._waiting if kept > version), *self._trend.candidates})

    def close(self, *, keep: Best | None) -> None:
        """The job has ended: nothing but the file of `keep` stays."""
        for path in self._files():
            if keep is None or path != keep.path:
                path.unlink(missing_ok=True)

    @property
    def _most(self) -> int:
        return max(1, min(MOST_WAITING, WAITING_BYTES // max(1, self._bytes)))

    def _path(self, version: int) -> Path:
        return self._folder / f"v{version:08d}.safetensors"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("v*.safetensors"))

    def _drop_but(self, versions: Collection[int]) -> None:
        """Only these are kept; of them those that have no score yet wait on."""
        self._waiting = [kept for kept in self._waiting if kept in versions and kept not in self._trend.candidates]
        for path in self._files():
            if _version_of(path) not in versions:
                path.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self._folder / "best.json"

    def _write_down(self) -> None:
        best = self._trend.best
        if best is None:
            self._note.unlink(missing_ok=True)
            return
        sync_file(self._path(best[0]))
        with replace_durably(self._note) as beside:
            beside.write_text(json.dumps({"version": best[0], "value": best[1]}))

    def _take_up(self) -> None:
        """After a restart: the best is what it was, whatever waited for its score is gone."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text())
            version, value = int(note["version"]), float(note["value"])
            if self._path(version).exists():
                self._trend.add(version, value)
        self._drop_but(self._trend.candidates)
        drop_leftovers(self._folder)


def _version_of(path: Path) -> int:
    return int(path.stem.removeprefix("v"))
