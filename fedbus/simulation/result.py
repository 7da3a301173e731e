"""What a run in virtual time gives: its curve, what became of every site's updates, the params at the end.

What lives here: numbers and what follows from them. What may not: files and pictures (see `curves`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from fedbus.tensors.digest import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The model that sites hold at virtual second `t`. Bytes are all that was sent until then, both ways."""

    t: float
    version: int
    updates: int
    bytes_up: int
    bytes_down: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """One site: trainings begun, updates folded, refused, clipped (of the folded), and lost because the site left."""

    trainings: int
    folded: int
    refused: int
    clipped: int
    lost: int
    mean_staleness: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run in virtual time.

    `reason` says why it ended, `rule` which one `auto` chose last and why; `final_params` are what sites held then,
    float32 [numel].
    """

    points: Sequence[Point]
    sites: Mapping[str, SiteReport]
    staleness: Mapping[str, float]
    version: int
    updates: int
    refused: int
    clipped: int
    bytes_up: int
    bytes_down: int
    ended_at: float
    reason: str
    rule: str | None
    final_params: Tensor

    def reached(
        self, metric: str, target: float, *, held: int = 2, better: Literal["higher", "lower"] = "higher"
    ) -> Point | None:
        """Return the first point from which `held` points in a row are on the good side of the target."""
        run: list[Point] = []
        for point in self.points:
            value = point.metrics.get(metric, math.nan)
            good = value >= target if better == "higher" else value <= target
            run = [*run, point] if good else []
            if len(run) == held:
                return run[0]
        return None

    def last(self, metric: str, *, points: int = 15) -> float | None:
        """Return the mean of a metric over the last points; None when none has it."""
        values = [p.metrics[metric] for p in self.points[-points:] if metric in p.metrics]
        return math.fsum(values) / len(values) if values else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the params as JSON-able data; the same run gives the same data."""
        return {
            "ended_at": self.ended_at,
            "reason": self.reason,
            "rule": self.rule,
            "version": self.version,
            "updates": self.updates,
            "refused": self.refused,
            "clipped": self.clipped,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "staleness": dict(self.staleness),
            "params_digest": digest(self.final_params),
            "sites": {name: asdict(report) for name, report in self.sites.items()},
            "points": [asdict(point) | {"metrics": dict(point.metrics)} for point in self.points],
        }


def staleness_figures(values: Sequence[int]) -> dict[str, float]:
    """Return mean, 95th percentile (nearest rank) and maximum; zeros when there are none."""
    ranked = sorted(values)
    if not ranked:
        return {"mean": 0.0, "p95": 0.0, "max": 0.0}
    rank = math.ceil(0.95 * len(ranked)) - 1
    return {"mean": sum(ranked) / len(ranked), "p95": float(ranked[rank]), "max": float(ranked[-1])}
