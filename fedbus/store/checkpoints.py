"""Checkpoints: params, hidden params and optimizer state of one version, as safetensors.

A checkpoint names the version and the last fact it covers, so that a restart replays only the facts after it. The two
newest are kept; a checkpoint that cannot be read is skipped in favour of the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedbus.store.files import make_folder, replace_durably

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
    """Files `folder/v<version>.safetensors` of one job."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint durably and drop all but the newest two."""
        path = self._folder / f"v{checkpoint.version:08d}.safetensors"
        metadata = {
            "version": str(checkpoint.version),
            "fact_seq": str(checkpoint.fact_seq),
            "digest": checkpoint.digest,
        }
        with replace_durably(path) as beside:
            save_file(dict(checkpoint.arrays), beside, metadata=metadata)
        for old in self._files()[:-_KEEP]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> Checkpoint | None:
        """The newest readable checkpoint, None when there is none."""
        for path in reversed(self._files()):
            try:
                with safe_open(path, framework="numpy") as file:
                    metadata = file.metadata()
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no iterator there
                return Checkpoint(
                    version=int(metadata["version"]),
                    fact_seq=int(metadata["fact_seq"]),
                    digest=metadata["digest"],
                    arrays=arrays,
                )
            except (SafetensorError, KeyError, ValueError, OSError):
                continue
        return None

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("v*.safetensors"))
