"""A run in virtual time as files: JSON, CSV, and a picture where matplotlib is installed.

What lives here: writing. What may not: what is in it (see `result`).

    result.json   everything, as `fedbus simulate -o json` prints it
    curve.csv     one line per evaluation
    curves.png    every metric over virtual seconds, and over the bytes that were sent
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbus.errors import SettingsError
from fedbus.simulation.result import Point

NO_PICTURE = "no curves.png: matplotlib is not installed here; pip install fedbus[simulate]"
MIB = 1 << 20


def write_files(folder: Path, facts: Mapping[str, Any], points: Sequence[Point], *, title: str) -> str | None:
    """Write the files above, the folder too; return why there is no picture, None when there is one.

    Raises SettingsError when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        _write_csv(folder / "curve.csv", points)
        return None if _draw(folder / "curves.png", points, title) else NO_PICTURE
    except OSError as exc:
        raise SettingsError(f"--out {folder}: cannot be written: {exc.strerror}") from exc


def metric_names(points: Sequence[Point]) -> list[str]:
    """Return the names of all metrics that any point has."""
    return sorted({name for point in points for name in point.metrics})


def _write_csv(path: Path, points: Sequence[Point]) -> None:
    names = metric_names(points)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["t", "version", "updates", "bytes_up", "bytes_down", *names])
        for p in points:
            numbers = [p.t, p.version, p.updates, p.bytes_up, p.bytes_down]
            writer.writerow([*numbers, *(p.metrics.get(name, "") for name in names)])


def _draw(path: Path, points: Sequence[Point], title: str) -> bool:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    names = metric_names(points) or [""]
    figure = Figure(figsize=(9, 2.6 * len(names)), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False, sharey="row")
    for name, (by_time, by_bytes) in zip(names, rows, strict=True):
        having = [point for point in points if name in point.metrics]
        values = [point.metrics[name] for point in having]
        by_time.plot([point.t for point in having], values)
        by_bytes.plot([(point.bytes_up + point.bytes_down) / MIB for point in having], values)
        by_time.set_ylabel(name)
    rows[-1][0].set_xlabel("virtual seconds")
    rows[-1][1].set_xlabel("MiB sent, up and down")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return True
