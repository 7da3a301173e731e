"""Whether a job's history gives what its checkpoints hold, bit for bit: params, hidden params and optimizer state."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbus.core.protocol.layout import Layout
from fedbus.core.words import counted
from fedbus.replay.replay import Recording, Replay, Told, nothing, with_recording
from fedbus.store.checkpoints import Checkpoint
from fedbus.store.state_reader import StateReader
from fedbus.store.tensor_file import TensorFile

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a replay gave: `compared` are the versions whose checkpoints it was compared with, up to a `difference`."""

    job: str
    from_version: int
    to_version: int
    updates: int
    seconds: float
    compared: tuple[int, ...]
    difference: str | None
    gone: int

    @property
    def identical(self) -> bool | None:
        """Whether every later checkpoint has these bits; None when there is none to compare with."""
        if self.difference is not None:
            return False
        return True if self.compared else None

    @property
    def says(self) -> str:
        """The result in plain words."""
        if self.difference is not None:
            return f"differs from the checkpoint of version {self.compared[-1]}: {self.difference}"
        kept = "; `fedbus aggregator --keep-updates` keeps them"
        before = f"the bodies of {counted(self.gone, 'update')} before version {self.from_version} are gone{kept}"
        if not self.compared and self.gone:
            return f"cannot be verified: {before}"
        if not self.compared:
            return f"nothing to compare with yet: the checkpoint of version {self.from_version} is the only one"
        versions = " and ".join(map(str, self.compared))
        several = "s" if len(self.compared) > 1 else ""
        same = f"bit-identical to the checkpoint{several} of version{several} {versions}"
        return f"{same}; {before}" if self.gone else same


def verify(state: StateReader, job: str, *, told: Told = nothing) -> tuple[Verdict, Replay]:
    """Replay all there is of a job and compare it with every checkpoint on the way, params, hidden and optimizer.

    Returns the replay too, at the last fact. Raises StoreError when the job cannot be replayed.
    """
    return with_recording(state, job, lambda recording: _verify(state, recording, told))


def _verify(state: StateReader, recording: Recording, told: Told) -> tuple[Verdict, Replay]:
    began = time.monotonic()
    replay = Replay(state, recording, told=told)
    compared: list[int] = []
    difference = None
    for checkpoint in recording.checkpoints:
        if checkpoint.fact_seq > recording.start.fact_seq and difference is None:
            replay.run(checkpoint.fact_seq)
            compared.append(checkpoint.version)
            difference = _difference(replay, checkpoint, recording.layout)
    replay.run()
    verdict = Verdict(
        job=recording.job,
        from_version=recording.start.version,
        to_version=replay.version,
        updates=replay.updates,
        seconds=time.monotonic() - began,
        compared=tuple(compared),
        difference=difference,
        gone=recording.gone,
    )
    return verdict, replay


def _difference(replay: Replay, checkpoint: Checkpoint, layout: Layout) -> str | None:
    """Where the replay and a checkpoint differ first, in words; None when all their bits are the same."""
    if replay.version != checkpoint.version:
        return f"the facts up to it lead to version {replay.version}"
    ours = replay.model.state()
    with TensorFile.open(checkpoint.path) as file:
        if ours.keys() != file.tensors.keys():
            return f"it holds {', '.join(sorted(file.tensors))}, the replay {', '.join(sorted(ours))}"
        for name, tensor in ours.items():
            if file.tensors[name].shape != tensor.shape:
                return f"its {name} are of shape {file.tensors[name].shape}, those of the replay {tensor.shape}"
            found = _first_difference(tensor.numpy(), file.pieces(name))
            if found is not None:
                at, mine, theirs = found
                return f"{name}, {_place(layout, at)}: {mine:.9g} in the replay, {theirs:.9g} in the checkpoint"
    return None


def _first_difference(mine: Floats, pieces: Iterable[memoryview]) -> tuple[int, float, float] | None:
    """Index of the first element whose bits differ from those in the file, and both values."""
    start = 0
    for piece in pieces:
        theirs: Floats = np.frombuffer(piece, "<f4")
        ours = mine[start : start + theirs.size]
        differ = np.flatnonzero(ours.view(np.int32) != theirs.view(np.int32))
        if differ.size:
            at = int(differ[0])
            return start + at, float(ours[at]), float(theirs[at])
        start += theirs.size
    return None


def _place(layout: Layout, at: int) -> str:
    """The element of the flat vector as people know it: weight[3, 17]."""
    for spec in layout.tensors:
        if at < spec.numel:
            index = [int(i) for i in np.unravel_index(at, spec.shape)]
            return f"{spec.name}{index if index else ''}"
        at -= spec.numel
    raise IndexError(at)
