"""Checkpoints: params, hidden params and optimizer state of one version, as safetensors.

A checkpoint names the version and the last fact it covers, so that a restart replays only the facts after it. The two
newest are kept: one that cannot be read, or whose digest differs, is skipped in favour of the one before it. That one
is of use only with the bodies of the updates after it, so those are kept until two checkpoints cover them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedbus.errors import StoreError
from fedbus.store.files import drop_leftovers, make_folder, replace_durably

Arrays = Mapping[str, np.ndarray]
_KEEP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State of a job at `version`, with all facts up to `fact_seq` in it."""

    version: int
    fact_seq: int
    digest: str
    arrays: Arrays


class Checkpoints:
    """Files `folder/v<version>.safetensors` of one job; the only owner of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)
        drop_leftovers(self._folder)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint durably and drop all but the newest two. StoreError when it cannot be written."""
        path = self._folder / f"v{checkpoint.version:08d}.safetensors"
        metadata = {
            "version": str(checkpoint.version),
            "fact_seq": str(checkpoint.fact_seq),
            "digest": checkpoint.digest,
        }
        try:
            with replace_durably(path) as beside:
                save_file(dict(checkpoint.arrays), beside, metadata=metadata)
        except SafetensorError as exc:  # its errors of the disk are no OSError
            raise StoreError(f"cannot write {path}: {exc}; is the disk full?") from exc
        for old in self._files()[:-_KEEP]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> Checkpoint | None:
        """The newest readable checkpoint, None when there is none."""
        return next(self.newest_first(), None)

    def newest_first(self) -> Iterator[Checkpoint]:
        """Every readable checkpoint, read when it is asked for."""
        for path in reversed(self._files()):
            try:
                with safe_open(path, framework="numpy") as file:
                    metadata = file.metadata()
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no iterator there
                checkpoint = Checkpoint(
                    version=int(metadata["version"]),
                    fact_seq=int(metadata["fact_seq"]),
                    digest=metadata["digest"],
                    arrays=arrays,
                )
            except (SafetensorError, KeyError, TypeError, ValueError, OSError):
                continue
            yield checkpoint

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("v*.safetensors"))
