"""The residual of error feedback between two trainings: files that the daemon names, vectors that the trainer adds."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout
from fedbus.errors import DecodeError
from fedbus.tensors.codec import decode_fold_all_, encode
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames, write_frames


class ResidualFiles:
    """The residual of one training, in the files that its command names."""

    def __init__(self, layout: Layout, command: p.Train) -> None:
        self._layout = layout
        self._command = command

    def add_to_(self, delta: Tensor) -> None:
        """Add what earlier updates left out, and leave that in `residual_before`.

        A file that cannot be read costs what was left out of earlier updates, not the training: then it is zero.
        """
        delta.add_(self._loaded(delta.device))

    def keep(self, left: Tensor) -> None:
        """Write what this update leaves out to `residual_after`."""
        write_frames(Path(self._command.residual_after), encode(left, self._layout, Code.FP32, seed=0))

    def _loaded(self, device: torch.device) -> Tensor:
        command, residual = self._command, torch.zeros(self._layout.numel, device=device)
        if not command.residual_add:
            return residual
        try:
            for paths, factor in ((command.residual_add, 1.0), (command.residual_subtract, -1.0)):
                for path in paths:
                    decode_fold_all_(residual, read_frames(Path(path)), self._layout, factor)
        except (DecodeError, OSError) as exc:
            text = f"fedbus trainer: the residual is lost, training goes on without it: {exc}"
            print(text, file=sys.stderr, flush=True)
            return residual.zero_()
        self._save(residual)
        return residual

    def _save(self, residual: Tensor) -> None:
        command, before = self._command, Path(self._command.residual_before)
        if len(command.residual_add) == 1 and not command.residual_subtract:
            with suppress(OSError):  # another name for the same file costs nothing, where the file system has that
                os.link(command.residual_add[0], before)
                return
        write_frames(before, encode(residual, self._layout, Code.FP32, seed=0))
