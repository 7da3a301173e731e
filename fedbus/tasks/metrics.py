"""Scores that the built-in tasks share."""

from __future__ import annotations

import torch
from torch import Tensor


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
