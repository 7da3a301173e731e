"""The tensors of a model that stay at the site, across restarts of its trainer: one safetensors file per job.

What a job's `keep` names, or its `travel` does not, never travels, so nobody else could give it back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedbus.errors import StoreError


class KeptTensors:
    """The file `path` of the tensors that a job keeps here."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def read(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what is kept of these tensors, by name.

        StoreError when the file is not there, is damaged or lacks one in the same shape and dtype.
        """
        try:
            found = load_file(self._path)
        except (safetensors.SafetensorError, OSError) as exc:
            raise StoreError(f"{self._path}: the tensors that this job keeps here cannot be read: {exc}") from exc
        for name, tensor in like.items():
            if name not in found or found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
                raise StoreError(
                    f"{self._path} holds other tensors than the task's model keeps here ({name}): was the task changed "
                    "in the middle of the job? Remove the file to begin with fresh ones"
                )
        return {name: found[name] for name in like}

    def of_these(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the tensors that are kept in the same shape and dtype; StoreError for a damaged file."""
        try:
            found = load_file(self._path)
        except (safetensors.SafetensorError, OSError) as exc:
            raise StoreError(f"{self._path}: what an earlier job kept here cannot be read: {exc}") from exc
        return {
            name: found[name]
            for name, tensor in like.items()
            if name in found and found[name].shape == tensor.shape and found[name].dtype == tensor.dtype
        }

    def save(self, tensors: Mapping[str, Tensor]) -> None:
        """Write them, so that a kill leaves the old file or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".tmp")
        # copies: of tensors that share memory the format holds none
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(self._path)
