"""Delay models: how long a site takes for one training, in virtual seconds.

What lives here: `--speeds` and the times it stands for. What may not: the order of events (see `loop`).

    equal               every site 1 s
    geometric:R         1 to R seconds, in equal ratios, the last site slowest; each training +- 10 %
    half-normal[:S]     |normal(0, S)|, S = 1 s, for every site (FedBuff, arXiv 2106.06639; QAFeL, 2308.00263)
    classes[:large]     each site of a class, U(1, 2), U(3, 5) or U(5, 8), `large`: the last one U(50, 80);
                        shares of the classes ~ Dirichlet(3, 2, 1) (FADAS, arXiv 2407.18365)
    pareto              Pareto(1), at least 1 s and at most 30 s (Plato)
    exponential[:S]     exponential, each site with a rate ~ log-normal(0, S^2), S = 1
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from fedbus.errors import SettingsError

Delay = Callable[[random.Random], float]
"""Draws the virtual seconds of one training, > 0."""

JITTER = 0.1
LONGEST_PARETO_S = 30.0
SHORTEST_S = 1e-3
CLASSES = ((1.0, 2.0), (3.0, 5.0), (5.0, 8.0))
LARGE_CLASS = (50.0, 80.0)
CLASS_SHARES = (3.0, 2.0, 1.0)


def constant(seconds: float) -> Delay:
    """Every training takes exactly so long."""
    return lambda _: seconds


def mean_delay(delay: Delay, *, draws: int = 200) -> float:
    """Return about how long a training takes, in virtual seconds; the same at every call."""
    rng = random.Random(0)
    return math.fsum(delay(rng) for _ in range(draws)) / draws


def delays_of(text: str, sites: int, *, seed: int) -> list[Delay]:
    """Return each site's delay; SettingsError for a text that is none of the models above."""
    kind, _, given = text.partition(":")
    rng = random.Random(f"delays/{seed}")
    match kind:
        case "equal" if not given:
            return [constant(1.0)] * sites
        case "geometric":
            ratio = _number(text, given, least=1.0)
            return [_jittered(ratio ** (site / max(1, sites - 1))) for site in range(sites)]
        case "half-normal":
            return [_half_normal(_number(text, given or "1"))] * sites
        case "classes" if given in ("", "large"):
            bounds = (*CLASSES[:2], LARGE_CLASS if given else CLASSES[2])
            shares = [rng.gammavariate(share, 1.0) for share in CLASS_SHARES]  # a Dirichlet draw, not yet divided
            return [_uniform(*rng.choices(bounds, shares)[0]) for _ in range(sites)]
        case "pareto" if not given:
            return [_pareto] * sites
        case "exponential":
            sigma = _number(text, given or "1")
            return [_exponential(rng.lognormvariate(0.0, sigma)) for _ in range(sites)]
    raise SettingsError(
        f"speeds {text!r}: expected equal, geometric:RATIO, half-normal[:SIGMA], classes[:large], pareto or "
        "exponential[:SIGMA]"
    )


def _number(text: str, given: str, *, least: float = 0.0) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not (value >= least and 0.0 < value < math.inf):
        raise SettingsError(f"speeds {text!r}: expected a number above {least:g} after the colon, such as geometric:10")
    return value


def _jittered(period_s: float) -> Delay:
    return lambda rng: period_s * rng.uniform(1 - JITTER, 1 + JITTER)


def _half_normal(sigma: float) -> Delay:
    return lambda rng: max(SHORTEST_S, abs(rng.gauss(0.0, sigma)))


def _uniform(low: float, high: float) -> Delay:
    return lambda rng: rng.uniform(low, high)


def _pareto(rng: random.Random) -> float:
    return min(LONGEST_PARETO_S, rng.paretovariate(1.0))


def _exponential(rate: float) -> Delay:
    return lambda rng: max(SHORTEST_S, rng.expovariate(rate))
