"""Checkpoints: params, hidden params and optimizer state of one version, as safetensors.

A checkpoint names the version and the last fact it covers, so that a restart replays only the facts after it. The two
newest are kept: one that cannot be read, or whose digest differs, is skipped in favour of the one before it. That one
is of use only with the bodies of the updates after it, so those are kept until two checkpoints cover them.

Saving and reading copy nothing: arrays go from the model's memory to the file and from the file to where they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbus.errors import StoreError
from fedbus.store.files import drop_leftovers, make_folder, replace_durably
from fedbus.store.tensor_file import TensorFile, TensorSource, write_tensors

Arrays = Mapping[str, np.ndarray]
_KEEP = 2
_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The head of a checkpoint: the state of a job at `version`, with all facts up to `fact_seq` in it."""

    version: int
    fact_seq: int
    digest: str
    path: Path

    def read(self) -> dict[str, np.ndarray]:
        """Its arrays, newly made and the caller's own. StoreError when the file cannot be read (any more)."""
        with TensorFile.open(self.path) as file:
            arrays = {}
            for name, tensor in file.tensors.items():
                if tensor.dtype not in _DTYPES:
                    raise StoreError(f"{self.path}: array {name!r} is {tensor.dtype}, expected {' or '.join(_DTYPES)}")
                arrays[name] = np.empty(tensor.shape, _DTYPES[tensor.dtype])
                file.read_into(name, _bytes_of(arrays[name]))
            return arrays


class Checkpoints:
    """Files `folder/v<version>.safetensors` of one job; the only owner of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)
        drop_leftovers(self._folder)

    def save(
        self, *, version: int, fact_seq: int, digest: str, arrays: Arrays, read: Callable[[], object] = lambda: None
    ) -> Path:
        """Write a checkpoint durably and drop all but the newest two. StoreError when it cannot be written.

        `arrays` are contiguous, float32 or int64, and only read; `read` is called once they are, before the disk has
        them.
        """
        path = self._folder / f"v{version:08d}.safetensors"
        metadata = {"version": str(version), "fact_seq": str(fact_seq), "digest": digest}
        sources = {name: _source(array) for name, array in arrays.items()}
        with replace_durably(path) as beside:
            write_tensors(beside, sources, metadata)
            read()
        for old in self._files()[:-_KEEP]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose head can be read, None when there is none."""
        return next(self.newest_first(), None)

    def newest_first(self) -> Iterator[Checkpoint]:
        """Every checkpoint whose head can be read; the head is read when it is asked for."""
        for path in reversed(self._files()):
            try:
                yield read_head(path)
            except StoreError:
                continue

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("v*.safetensors"))


def read_head(path: Path) -> Checkpoint:
    """What a checkpoint says of itself. StoreError when `path` is none, or not whole."""
    try:
        with TensorFile.open(path) as file:
            metadata = file.metadata
        return Checkpoint(
            version=int(metadata["version"]),
            fact_seq=int(metadata["fact_seq"]),
            digest=metadata["digest"],
            path=path,
        )
    except (KeyError, ValueError) as exc:
        raise StoreError(f"{path} is no checkpoint: {exc!r}") from exc


def _source(array: np.ndarray) -> TensorSource:
    return TensorSource(dtype=_NAMES[array.dtype], shape=array.shape, pieces=[_bytes_of(array)])


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).data.cast("B")
