"""Some elements of a flat vector that stand for all: every so-manieth, far enough apart to be of all tensors."""

from __future__ import annotations

import math


def sample(start: int, stop: int, *, most: int) -> slice:
    """At most about `most` places from `start` to `stop`, at one distance."""
    return slice(start, stop, _prime_from(max(1, -(-(stop - start) // most))))


def _prime_from(number: int) -> int:
    """The smallest prime from `number` on (1 for 1): rows of a tensor must not line up with the stride."""
    while any(number % k == 0 for k in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
