"""What is annotated in a run: the hippocampi of the Decathlon, or synthetic kidneys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedbus.bench.annotation.run import Plan
from fedbus.imaging.hippocampus import write_hippocampus
from fedbus.imaging.kidneys import write_kidneys

LOCAL = {"steps": 10, "batch_size": 4, "learning_rate": 0.005, "autocast_bf16": True, "evaluate": False}
HIPPOCAMPUS = {"classes": ["anterior", "posterior"], "patch_size": [32, 48, 32]}
KIDNEYS = {
    "classes": ["kidney", "tumour"],
    "patch_size": [48, 32, 32],
    "spacing": [2.0, 2.0, 2.0],
    "intensity": {"kind": "window", "low": -200, "high": 300},
}
JUDGED = 6


def plan_of(folder: Path, hippocampus: Path | None, *, first: int, later: int, every_s: float, versions: int) -> Plan:
    """Write the studies into `folder` and say what is done with them."""
    config: dict[str, Any]
    if hippocampus is None:
        config, name = KIDNEYS, "annotated-kidneys"
        counts = write_kidneys(folder, studies=JUDGED + (first + later + 2) // 3, seed=0)
    else:
        config, name = HIPPOCAMPUS, "annotated-hippocampi"
        counts = write_hippocampus(hippocampus, folder)
    return Plan(
        spec={"name": name, "task": "segmentation", "task_config": config, "local": LOCAL},
        data={site: folder / site for site in counts},
        first=first,
        later=later,
        every_s=every_s,
        judged=JUDGED,
        versions=versions,
    )
