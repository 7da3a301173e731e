"""Residuals of error feedback at the site: files of frames beside the outbox, each belonging to one update.

    <sequence>.residual.new   what update <sequence> left out, as the trainer wrote it; counts once its record is there
    <sequence>.residual       the same, of an update that was put into the outbox
    <sequence>.before         the residual that went into it; missing when that was zero
    <sequence>.refused        the update was refused, and no later one has made up for it yet

What lives here: which files make up the residual that goes into the next update. What may not: their arithmetic (see
`fedbus.tensors.feedback`), which the trainer does:

    residual = newest .residual + sum over .refused of (its .before - its .residual)

The record of an update names the refused ones that it made up for; with the record they are done. So whatever is
killed, and whenever, the residual of every update is counted once: before the record everything is as it was, after it
all that is left to do can be done again from the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedbus.store.files import disk_errors, sync_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one training does with the residual: it is the sum of the files `add` less those in `subtract`.

    The trainer writes it to `before` (unless it is zero) and what the update leaves out to `after`.
    """

    add: tuple[Path, ...]
    subtract: tuple[Path, ...]
    before: Path
    after: Path
    compensates: tuple[int, ...]


class Residuals:
    """The files of one outbox. `waiting` are the sequence numbers in it, `compensated` those its records name."""

    def __init__(self, folder: Path, waiting: Iterable[int], compensated: Iterable[int]) -> None:
        self._folder = folder
        self._waiting = set(waiting)
        self._being_made: int | None = None
        with disk_errors("cannot read residuals", folder):
            for sequence in self._waiting:
                self._count(sequence)
            for sequence in compensated:
                self._path(sequence, "refused").unlink(missing_ok=True)
            self._tidy()

    @property
    def next(self) -> int:
        """The lowest sequence number above all files here."""
        return max((s + 1 for kind in ("residual", "refused") for s in self._sequences(kind)), default=0)

    def source(self, sequence: int, *, fresh: bool = False) -> Source:
        """What goes into update `sequence`, which is about to be made; what was being made before is dropped.

        `fresh`: nothing of what earlier updates left out.
        """
        self._being_made = sequence
        self._tidy()
        refused = sorted(self._sequences("refused"))
        counts: Counter[Path] = Counter()
        if not fresh and (newest := self._sequences("residual")):
            counts[self._path(max(newest), "residual")] += 1
        for earlier in refused if not fresh else ():
            counts[self._path(earlier, "before")] += 1
            counts[self._path(earlier, "residual")] -= 1
        return Source(
            add=tuple(path for path, count in counts.items() if count > 0 and path.exists()),
            subtract=tuple(path for path, count in counts.items() if count < 0),
            before=self._path(sequence, "before"),
            after=self._path(sequence, "residual.new"),
            compensates=tuple(refused),
        )

    def commit(self, sequence: int, compensates: Iterable[int]) -> None:
        """The record of the update is there: its residual counts, and those it made up for are done."""
        with disk_errors("cannot keep residual", self._folder):
            self._count(sequence)
            for earlier in compensates:
                self._path(earlier, "refused").unlink(missing_ok=True)
        self._waiting.add(sequence)
        self._tidy()

    def is_refused(self, sequence: int) -> bool:
        """Whether this update was refused, and none has made up for it."""
        return self._path(sequence, "refused").exists()

    def refuse(self, sequence: int) -> None:
        """The update was refused: durably, so that the record may go."""
        if self._path(sequence, "residual").exists():
            with disk_errors("cannot keep residual", self._folder):
                self._path(sequence, "refused").touch()
                sync_folder(self._folder)

    def settle(self, sequence: int) -> None:
        """The update is not waiting any more."""
        self._waiting.discard(sequence)
        self._tidy()

    def _count(self, sequence: int) -> None:
        new = self._path(sequence, "residual.new")
        if new.exists():
            new.replace(self._path(sequence, "residual"))

    def _tidy(self) -> None:
        """Drop what no residual is made of any more, and what was written for updates that never came to be."""
        wanted = self._waiting | self._sequences("refused") | {self._being_made}
        held = self._sequences("residual")
        newest = {max(held)} if held else set()
        for sequence in held - wanted - newest:
            self._path(sequence, "residual").unlink(missing_ok=True)
        for kind in ("before*", "residual.new*"):
            for path in self._folder.glob(f"[0-9]*.{kind}"):
                if _sequence_of(path) not in wanted:
                    path.unlink(missing_ok=True)

    def _sequences(self, kind: str) -> set[int]:
        return {_sequence_of(path) for path in self._folder.glob(f"[0-9]*.{kind}")}

    def _path(self, sequence: int, kind: str) -> Path:
        return self._folder / f"{sequence:08d}.{kind}"


def _sequence_of(path: Path) -> int:
    return int(path.name.partition(".")[0])
