"""Sums over the whole batch of all ranks, through which gradients pass: for a loss that is no mean over examples.

With s = sum over ranks of s_r and weights w_r of the slices, the gradients of all ranks are averaged by w_r afterwards
(see `gradients`), so that of s_r is the one of s divided by w_r: sum of w_r * (ds / w_r) = ds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedbus.training.ranks.team import Place, Team


def whole(ours: Tensor, team: Team | None) -> Tensor:
    """Return the sum over the ranks of `ours`, sums over a rank's slice; itself when there is one rank.

    Every rank calls it as often, with the same shapes. A rank whose slice counts nothing adds nothing.
    """
    return ours if team is None else _Whole.apply(ours, team)  # type: ignore[no-untyped-call]


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ours: Tensor, team: Team) -> Tensor:
        ctx.weight = team.weight
        total = ours.detach().clone() if team.weight else torch.zeros_like(ours)
        team.meet(Place.WHOLE)
        team.sum_([total])
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return (grad / ctx.weight if ctx.weight else torch.zeros_like(grad)), None
