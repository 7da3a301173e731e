"""Spreads, counts and prints of arrays, with exact counts: withholding is the trainer's, see `training.examine`."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedbus.core.protocol.statistics import MOST_LOSS, MOST_VALUES, QUANTILES, ClassLoss, Distribution, Labels


def distribution_of(values: ArrayLike) -> Distribution:
    """The spread of `values` [n]; NaN and infinity do not count."""
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    found = found[np.isfinite(found)]
    if not len(found):
        return Distribution()
    return Distribution(count=len(found), quantiles=tuple(float(q) for q in np.quantile(found, QUANTILES)))


def counts_of(values: Iterable[Any]) -> dict[str, int]:
    """How often each value stands there, the MOST_VALUES most frequent ones, whole numbers without a point."""
    counted = Counter(map(_word, values)).most_common(MOST_VALUES)
    return dict(sorted(counted, key=lambda pair: _order(pair[0])))


def labels_of(labels: ArrayLike, *, expected: Sequence[int]) -> Labels:
    """Labels [n], one an example. expected: what the job's classes are."""
    found, times = np.unique(np.asarray(labels), return_counts=True)
    order = np.argsort(-times)[:MOST_VALUES]
    counts = {_word(found[at]): int(times[at]) for at in order}
    ordered = dict(sorted(counts.items(), key=lambda pair: _order(pair[0])))
    return Labels(counts=ordered, expected=tuple(expected))


def prints_of(rows: Iterable[NDArray[Any] | Sequence[Any]], *, salt: str) -> tuple[str, ...]:
    """A print for each example, of its values as float64 in their order; none without a salt.

    The values alone: file format, dtype and names do not survive an export, numbers do.
    """
    if not salt:
        return ()
    key = bytes.fromhex(salt)
    return tuple(hmac.new(key, _canonical(row), hashlib.sha256).hexdigest()[:16] for row in rows)


def _canonical(row: NDArray[Any] | Sequence[Any]) -> bytes:
    array = np.ascontiguousarray(np.asarray(row, dtype=np.float64))
    array = np.where(np.isnan(array), np.nan, array) + 0.0  # one NaN, and no minus zero
    return repr(array.shape).encode() + array.astype("<f8").tobytes()


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:.3f}".rstrip("0")


def _order(word: str) -> tuple[float, str]:
    try:
        return float(word), ""
    except ValueError:
        return 0.0, word


def class_losses_of(labels: ArrayLike, losses: ArrayLike) -> dict[str, ClassLoss]:
    """By label value the mean and variance of losses [n], each cut at MOST_LOSS; labels [n]."""
    values, cut = np.asarray(labels), np.minimum(np.asarray(losses, dtype=np.float64), MOST_LOSS)
    found = {}
    for value in np.unique(values):
        own = cut[values == value]
        variance = float(own.var(ddof=1)) if len(own) > 1 else 0.0
        found[_word(value)] = ClassLoss(examples=len(own), mean=float(own.mean()), variance=variance)
    return found
