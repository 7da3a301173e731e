from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbus.tensors.fold import Accumulator


def deltas(count: int, numel: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(numel, generator=generator) for _ in range(count)]


def test_all_fresh_is_fedavg_to_the_bit() -> None:
    # given four sites with these numbers of examples (McMahan et al. 2017: sum n_i d_i / sum n_i)
    examples = [303, 294, 123, 200]
    updates = deltas(4, 70_001)
    expected = np.zeros(70_001, np.float32)
    for n, update in zip(examples, updates, strict=True):
        expected = expected + np.float32(n) * update.numpy()
    expected = expected / np.float32(sum(examples))

    # when they are folded with these numbers as weights
    accumulator = Accumulator(70_001)
    for n, update in zip(examples, updates, strict=True):
        accumulator.fold_(update, n)

    # then the mean is the same, bit for bit
    assert accumulator.mean(sum(examples)).numpy().tobytes() == expected.tobytes()


def test_folding_reads_the_delta_and_reset_empties_the_buffer() -> None:
    (delta,) = deltas(1, 100)
    before = delta.clone()
    accumulator = Accumulator(100)

    accumulator.fold_(delta, 0.25)
    accumulator.reset_()

    assert torch.equal(delta, before)
    assert not accumulator.mean(1.0).any()


def test_mean_goes_into_out() -> None:
    accumulator = Accumulator(3)
    accumulator.fold_(torch.tensor([1.0, 2.0, 4.0]), 3.0)
    out = torch.empty(3)

    assert accumulator.mean(6.0, out=out) is out
    assert out.tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("normaliser", [0.0, -1.0, float("nan")])
def test_a_normaliser_that_is_not_positive_is_refused(normaliser: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Accumulator(3).mean(normaliser)
