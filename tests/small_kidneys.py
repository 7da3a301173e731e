"""Drawn kidneys of few voxels, and a job's `task_config` that trains on them in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedbus.imaging.kidneys import Scanner, draw_study, write_study

SCANNER = Scanner(spacing=(4.0, 4.0, 4.0), noise=10, gain=1, offset=0)
CONFIG: dict[str, Any] = {
    "classes": ["kidney", "tumour"],
    "patch_size": [24, 16, 16],
    "network": {"kind": "unet", "channels": [8, 16]},
    "intensity": "window",
}


def write_studies(folder: Path, ids: list[str], rng: np.random.Generator, *, tumours: bool = True) -> None:
    """A folder per study; without `tumours` nobody has outlined them."""
    for study in ids:
        image, label = draw_study(SCANNER, rng)
        outlined = label if tumours else np.where(label == 1, 1, 0).astype("u1")
        write_study(folder / study, image, outlined, SCANNER.spacing)
