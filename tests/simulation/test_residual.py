"""The residual of a simulated site: what an update took of it comes back when it is refused."""

from __future__ import annotations

import torch
from torch import Tensor

from fedbus.simulation.residual import HeldResidual


def held(residual: HeldResidual) -> Tensor:
    found = torch.zeros(3)
    residual.add_to_(found)
    return found


def after(*lefts: float) -> HeldResidual:
    """A site whose updates left these out, all of them folded."""
    residual = HeldResidual(3)
    for left in lefts:
        residual.keep(torch.full((3,), left))
        residual.decided(refused=False)
    return residual


def test_it_is_zero_at_first_and_then_what_the_last_update_left_out() -> None:
    assert held(after()).eq(0.0).all()
    assert held(after(0.1, 0.3)).eq(0.3).all()


def test_a_refused_update_gives_back_the_residual_to_the_bit() -> None:
    residual = after(0.1)
    residual.keep(torch.full((3,), 7.0))

    residual.decided(refused=True)
    residual.decided(refused=True)  # the receipt came twice

    assert torch.equal(held(residual), held(after(0.1)))


def test_what_was_left_out_is_a_copy() -> None:
    residual, left = HeldResidual(3), torch.ones(3)
    residual.keep(left)
    left.zero_()
    assert held(residual).eq(1.0).all()
