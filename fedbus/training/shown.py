"""A test case as a person at the site looks at it: what a task's `cases` yields. It never leaves the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCase:
    """One study with what is known of it and what a model makes of it.

    image: numbers [X, Y, Z]. label, prediction: uint8 [X, Y, Z], 0 or a key of `classes`. spacing: mm along each axis.
    orientation: where the axes lead, such as RAS: to the right, to the front, up. scores: by the name of a class, NaN
    for one that the label does not have.
    """

    id: str
    image: NDArray[Any]
    label: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    classes: Mapping[int, str]
    scores: Mapping[str, float]
    orientation: str = "RAS"

    @property
    def mean(self) -> float:
        """Mean of the scores that there are; NaN without any."""
        known = [value for value in self.scores.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")
