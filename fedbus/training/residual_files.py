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


def load_residual(layout: Layout, command: p.Train, *, device: torch.device) -> Tensor:
    """Return the residual that goes into this training, float32 [numel], and leave it in `residual_before`.

    A file that cannot be read costs what was left out of earlier updates, not the training: then it is zero.
    """
    residual = torch.zeros(layout.numel, device=device)
    if not command.residual_add:
        return residual
    try:
        for paths, factor in ((command.residual_add, 1.0), (command.residual_subtract, -1.0)):
            for path in paths:
                decode_fold_all_(residual, read_frames(Path(path)), layout, factor)
    except (DecodeError, OSError) as exc:
        print(f"fedbus trainer: the residual is lost, training goes on without it: {exc}", file=sys.stderr, flush=True)
        return residual.zero_()
    _keep(residual, layout, command)
    return residual


def _keep(residual: Tensor, layout: Layout, command: p.Train) -> None:
    before = Path(command.residual_before)
    if len(command.residual_add) == 1 and not command.residual_subtract:
        with suppress(OSError):  # another name for the same file costs nothing, where the file system has that
            os.link(command.residual_add[0], before)
            return
    write_frames(before, encode(residual, layout, Code.FP32, seed=0))
