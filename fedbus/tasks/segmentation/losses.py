"""Losses on logits, for sites that may have labelled only some of the job's classes.

marginal   Where a site has not labelled a class, its voxels lie in what the site calls background. So the
           probabilities of background and of all such classes are added before the loss is taken: the logits become
           log(sum of exp) of theirs (Shi et al. 2021, arXiv 2007.03868; Fidon et al. 2021, arXiv 2107.04259). The
           gradient then says nothing about which of them a voxel is, and the class is not unlearnt.
dice       1 - 2 |p y| / (|p| + |y|), over all patches of a batch together, mean of the labelled classes
ce, focal  mean over voxels of -log p and of -(1 - p)^2 log p (Lin et al. 2017, arXiv 1708.02002)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5
FOCUS = 2.0


def merged(logits: Tensor, labelled: Sequence[int]) -> Tensor:
    """Return logits [n, 1 + labelled, ...] of [n, 1 + classes, ...]: channels not in `labelled` join the background.

    labelled: channels >= 1, ascending. With all of them the logits come back as they are.
    """
    channels = logits.shape[1]
    if len(labelled) == channels - 1:
        return logits
    others = [0, *(channel for channel in range(1, channels) if channel not in labelled)]
    background = torch.logsumexp(logits[:, others], dim=1, keepdim=True)
    return torch.cat([background, logits[:, list(labelled)]], dim=1)


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    labelled: Sequence[int],
    kind: Literal["dice_ce", "dice", "dice_focal"],
    *,
    whole: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Tensor:
    """Return the loss, a scalar fp32, of logits [n, 1 + classes, ...] against channels uint8 or int64 [n, ...].

    target: 0 or a channel of `labelled`. whole: makes sums over the whole batch of those over what is here of it.
    """
    logits = merged(logits.float(), labelled)
    place = torch.zeros(int(max(labelled, default=0)) + 1, dtype=torch.int64, device=logits.device)
    for at, channel in enumerate(labelled, start=1):
        place[channel] = at
    target = place[target.long()]
    log_p = functional.log_softmax(logits, dim=1)
    loss = _dice(log_p.exp(), target, whole)
    if kind == "dice":
        return loss
    chosen = log_p.gather(1, target.unsqueeze(1))
    if kind == "dice_focal":
        chosen = (1 - chosen.exp()) ** FOCUS * chosen
    return loss - chosen.mean()


def _dice(probabilities: Tensor, target: Tensor, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """1 minus the mean soft Dice of the channels after the first; a batch without one of them counts as its size."""
    over = [axis for axis in range(probabilities.dim()) if axis != 1]
    one_hot = functional.one_hot(target, probabilities.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    sums = torch.stack([(probabilities * one_hot).sum(over), (probabilities + one_hot).sum(over)])
    shared, total = whole(sums).unbind()
    dice: Tensor = (2 * shared + SMOOTH) / (total + SMOOTH)
    return 1 - dice[1:].mean()
