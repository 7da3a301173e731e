"""Staleness functions: how much an update counts that was trained from an older version.

What lives here: s (staleness in versions, an integer >= 0, 0 for a fresh update) -> staleness weight in (0, 1].
What may not: anything else about an update (see `strategies`).

    constant            1
    polynomial(a)       (1 + s)^-a
    hinge(a, b)         1 if s <= b, else 1 / (a (s - b) + 1)
    exponential(a)      exp(-a s)

The first three are those of FedAsync (Xie et al. 2019, arXiv 1903.03934), with the +1 of the hinge that some
implementations drop: without it the weight jumps above 1 behind the corner when a < 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never

from fedbus.core.spec.training import ConstantSpec, ExponentialSpec, HingeSpec, PolynomialSpec, StalenessSpec

MIN_WEIGHT = 1e-12
"""Floor of every staleness weight: a buffer of nothing but ancient updates is still divided by a sum above zero."""


def constant(staleness: int) -> float:
    """Return 1: staleness does not matter."""
    return 1.0


def polynomial(staleness: int, *, a: float) -> float:
    """Return (1 + s)^-a, at least MIN_WEIGHT (arXiv 1903.03934; a = 0.5 is the weight of FedBuff, arXiv 2106.06639)."""
    return max(MIN_WEIGHT, math.pow(1.0 + staleness, -a))


def hinge(staleness: int, *, a: float, b: int) -> float:
    """Return 1 up to b versions, then 1 / (a (s - b) + 1), at least MIN_WEIGHT (arXiv 1903.03934)."""
    return 1.0 if staleness <= b else max(MIN_WEIGHT, 1.0 / (a * (staleness - b) + 1.0))


def exponential(staleness: int, *, a: float) -> float:
    """Return exp(-a s), at least MIN_WEIGHT."""
    return max(MIN_WEIGHT, math.exp(-a * staleness))


def staleness_function(spec: StalenessSpec) -> Callable[[int], float]:
    """Return the function that a job spec asks for."""
    match spec:
        case ConstantSpec():
            return constant
        case PolynomialSpec(a=a):
            return lambda staleness: polynomial(staleness, a=a)
        case HingeSpec(a=a, b=b):
            return lambda staleness: hinge(staleness, a=a, b=b)
        case ExponentialSpec(a=a):
            return lambda staleness: exponential(staleness, a=a)
        case _:
            assert_never(spec)
