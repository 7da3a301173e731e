"""Event files for TensorBoard: `tensorboard --logdir DIR` shows every job below DIR as a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from fedbus.store.files import disk_errors
from fedbus.tracking.points import Point


class TensorBoardSink:
    """One folder a job; a restart adds a file to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def written(self) -> set[tuple[str, int]]:
        if not self._folder.is_dir():
            return set()
        with disk_errors("cannot read event files in", self._folder):
            found = EventAccumulator(str(self._folder), size_guidance={"scalars": 0})
            found.Reload()
        return {(name, point.step) for name in found.Tags()["scalars"] for point in found.Scalars(name)}

    def write(self, points: Sequence[Point]) -> None:
        with disk_errors("cannot write event files in", self._folder):
            if self._writer is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._writer = EventFileWriter(str(self._folder))
            for point in points:
                value = Summary.Value(tag=point.name, simple_value=point.value)
                event = Event(wall_time=point.at, step=point.version, summary=Summary(value=[value]))
                self._writer.add_event(event)
            self._writer.flush()

    def close(self, state: str | None) -> None:
        if self._writer is not None:
            with disk_errors("cannot write event files in", self._folder):
                self._writer.close()
