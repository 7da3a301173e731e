"""Scores that the built-in tasks share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedbus.training.cases import Rows


def auc(scores: Tensor, labels: Tensor) -> float | None:
    """Return the area under the ROC curve, or None where there is none: a single class, scores not finite.

    scores [n] of any float dtype; labels [n], positive where > 0. The Mann-Whitney statistic: the share of
    (positive, negative) pairs in which the positive scores higher, ties counting half.
    """
    positive = labels > 0
    positives = int(positive.sum())
    pairs = positives * (len(labels) - positives)
    if pairs == 0 or not bool(scores.isfinite().all()):
        return None
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    last_rank = sizes.cumsum(0).double()
    mean_rank = last_rank - (sizes.double() - 1) / 2
    rank_sum = float(mean_rank[group][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / pairs


def auc_again(scores: Tensor, labels: Tensor) -> Callable[[Rows], float]:
    """Return `auc` as a function of drawn rows, int64 [m]; NaN where these are of a single class.

    scores [n], finite; labels [n]. What is drawn is counted and the counts are summed in the order of the scores, so
    that a draw costs no sorting: O(n + m).
    """
    groups, group = np.unique(scores.double().cpu().numpy(), return_inverse=True)
    positive = (labels > 0).cpu().numpy()

    def again(rows: Rows) -> float:
        drawn, of = group[rows], positive[rows]
        ill = np.bincount(drawn[of], minlength=len(groups)).astype(np.float64)
        well = np.bincount(drawn[~of], minlength=len(groups)).astype(np.float64)
        pairs = ill.sum() * well.sum()
        below = well.cumsum() - 0.5 * well  # a tie counts half
        return float(ill @ below / pairs) if pairs else float("nan")

    return again
