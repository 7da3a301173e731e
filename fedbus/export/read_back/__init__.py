"""Programs that read an export back, each in a fresh process without fedbus: what they find is compared with the model.

A program is named as its format and is given three files: the export, an example input, and where to write.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedbus.errors import ExportError

LIMIT = timedelta(minutes=10)
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Outputs may differ by so much: other libraries add in another order."""
LAST_WORDS = 500


def read_back(kind: str, artifact: Path, example: Tensor) -> dict[str, Tensor]:
    """Let the program of a format read an export in a process of its own; what it writes, on the CPU.

    Raises ExportError with the process's last words when it cannot.
    """
    program = Path(__file__).with_name(f"of_{kind.replace('-', '_')}.py")
    with tempfile.TemporaryDirectory(prefix="fedbus-export-") as folder:
        given, out = Path(folder) / "example.safetensors", Path(folder) / "out.safetensors"
        save_file({"input": example.contiguous()}, given)
        command = [sys.executable, "-I", str(program), str(artifact.absolute()), str(given), str(out)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                cwd=folder,
                timeout=LIMIT.total_seconds(),
                check=False,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired as exc:
            raise ExportError(f"{kind}: reading it back took more than {LIMIT.total_seconds():.0f} s") from exc
        if done.returncode:
            raise ExportError(f"{kind}: it cannot be read back: {_last_words(done.stderr)}")
        try:
            return dict(load_file(out))
        except (OSError, SafetensorError) as exc:
            raise ExportError(f"{kind}: what reads it back wrote nothing: {exc}") from exc


def difference(found: Tensor | None, expected: Tensor, what: str) -> float:
    """The largest difference of two outputs. Raises ExportError when it is no rounding."""
    if found is None or found.shape != expected.shape:
        got = "nothing" if found is None else f"shape {list(found.shape)}"
        raise ExportError(f"{what}: expected shape {list(expected.shape)}, the export gives {got}")
    largest = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
    if not torch.allclose(found.double(), expected.double(), rtol=RELATIVE, atol=ABSOLUTE):
        raise ExportError(f"{what}: the export differs from the model by up to {largest:.3g}: it is not used")
    return largest


def _last_words(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][-LAST_WORDS:] if lines else "it said nothing"
