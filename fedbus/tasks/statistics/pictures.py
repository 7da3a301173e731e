"""Statistics of pictures with a label each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedbus.core.protocol.statistics import Images, Plan, Statistics
from fedbus.tasks.statistics.arrays import distribution_of, labels_of, prints_of


def picture_statistics(
    pixels: NDArray[Any], labels: NDArray[Any], *, expected: Sequence[int], plan: Plan
) -> Statistics:
    """Of pictures [n, ...] and labels [n]; expected: what the job's classes are."""
    flat = pixels.reshape(len(pixels), -1)
    prints = prints_of(np.round(flat, 6), salt=plan.salt)
    low, middle, high = np.percentile(flat, (1, 50, 99), axis=1)
    shape = "x".join(map(str, pixels.shape[1:]))
    return Statistics(
        examples=len(pixels),
        labels=labels_of(labels, expected=expected),
        images=Images(
            dtypes={str(pixels.dtype): len(pixels)},
            shapes={shape: len(pixels)},
            intensity={"p1": distribution_of(low), "p50": distribution_of(middle), "p99": distribution_of(high)},
        ),
        copies=len(flat) - len(np.unique(flat, axis=0)),
        prints=prints,
    )
