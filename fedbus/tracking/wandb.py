"""Run files of wandb's offline mode below a folder; a person sends them with `wandb sync`, or never.

Nothing of this machine is noted beside the points: no command line, no code, no console, no host. A restart adds a
file under the same run id, which wandb puts together.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

from fedbus.store.files import disk_errors
from fedbus.tracking.points import Point

STEP = "version"
FLUSHED_S = 20.0
HEAD_BYTES, BLOCK_BYTES = 7, 32768
PART = struct.Struct("<IHB")
"""CRC, length and kind of a part of a record."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class WandbSink:
    """Of one job; the x axis of every curve is `version`."""

    def __init__(self, folder: Path, job: str, name: str) -> None:
        self._folder = folder
        self._job = job
        self._name = name
        self._run: Any = None
        self._handed: set[tuple[str, int]] = set()

    def written(self) -> set[tuple[str, int]]:
        with disk_errors("cannot read wandb files in", self._folder):
            return {key for file in self._runs("*") for key in points_in(file)}

    def write(self, points: Sequence[Point]) -> None:
        with disk_errors("cannot write wandb files in", self._folder):
            if self._run is None:
                self._run = self._begin()
            self._handed |= {point.key for point in points}
            for point in points:
                self._run.log({STEP: point.version, point.name: point.value, "_timestamp": point.at})

    def close(self, state: str | None) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(state not in (None, "finished")))
            until = time.monotonic() + FLUSHED_S
            while not self._handed <= self.written() and time.monotonic() < until:
                time.sleep(0.1)  # its service writes on for a moment after it has said that it is done

    def _runs(self, at: str) -> list[Path]:
        return sorted((self._folder / "wandb").glob(f"offline-run-{at}-{self._job}/run-{self._job}.wandb"))

    def _begin(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        while self._runs(time.strftime("%Y%m%d_%H%M%S")):
            time.sleep(0.1)  # wandb names a run's folder by the second, and would write over that of this one
        settings = wandb.Settings(
            mode="offline",
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            host="fedbus",
            program="fedbus",
            settings_system="/dev/null",
        )
        run = wandb.init(
            project="fedbus", group=self._name, id=self._job, name=self._job, dir=self._folder, settings=settings
        )
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)
        return run


def points_in(file: Path) -> Iterator[tuple[str, int]]:
    """Name and version of each point in a run file; one that was cut off by a kill is read up to there."""
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            row = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            yield from ((name, int(row[STEP])) for name in row if STEP in row and "/" in name)


def records(log: bytes) -> Iterator[bytes]:
    """The records of a run file, which is a LevelDB log after a head of HEAD_BYTES; up to what is cut off."""
    at, whole = HEAD_BYTES, b""
    while at + PART.size <= len(log):
        if BLOCK_BYTES - at % BLOCK_BYTES < PART.size:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        _, size, kind = PART.unpack_from(log, at)
        part = log[at + PART.size : at + PART.size + size]
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(part) < size:
            return
        at += PART.size + size
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            yield whole
