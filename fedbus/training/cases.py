"""Values per test case, as a task gives them with its scores. They stay at the site: only what `intervals` makes of
them may leave.

    cases      by metric, float64 [n] in the order of the test data, which is the same at every call; NaN: this case
               has no value of this metric (no such organ in the image). The metric is the mean over those that have one
    resample   for metrics that are no means, such as AUC: takes the rows of a drawn test set, int64 [n], a row as often
               as it was drawn, and gives these metrics once more; one that has no value there is left out or NaN
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedbus.errors import ContractError

Values = NDArray[np.float64]
Rows = NDArray[np.int64]
Resample = Callable[[Rows], Mapping[str, float]]

MOST_CASES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Of one model: `count` test cases, and what is known of each."""

    count: int
    values: Mapping[str, Values] = field(default_factory=dict)
    resample: Resample | None = None


def as_values(name: str, raw: Any) -> Values:
    """Return one value per case, float64 [n], from a list, an array or a tensor. ContractError for what is none."""
    try:
        plain = raw.detach().cpu().double().numpy() if isinstance(raw, torch.Tensor) else raw
        found = np.array(plain, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as exc:
        said = f"expected one number per test case of {_shown(name)}"
        raise ContractError(f"{said}: {exc}", said=said) from exc
    if found.ndim != 1 or len(found) > MOST_CASES:
        text = f"expected one number per test case of {_shown(name)}, at most {MOST_CASES}; got shape {found.shape}"
        raise ContractError.of_job(text)
    return found


def mean_of_cases(name: str, values: Values) -> float | None:
    """Return the mean over the cases that have a value; None: no case has.

    Every case has a loss: one that is NaN makes the mean NaN, for the model is of no use there.
    """
    known = values if name == "loss" else values[~np.isnan(values)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # infinities of both signs: the mean is NaN, and is said
        return float(known.mean()) if len(known) else None


def _shown(name: str) -> str:
    return f"metric {name!r}" if isinstance(name, str) else "a metric"
