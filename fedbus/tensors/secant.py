"""What a site's two last trainings say together: how much less it asks for, for how far the model has come.

With a base b and the delta d that training from it gave, and the same of the training before (b', d'),

    travel   = |b - b'|^2                     response = -<d - d', b - b'>

On a quadratic loss local training gives d = A (x* - b), A = I - (I - lr H)^steps, and response / travel is the
Rayleigh quotient of A along the way that the global model went: the secant of Barzilai and Borwein (1988, IMA J. Numer.
Anal. 8), taken of the training as a whole. A site knows both sides of it exactly and tells two numbers; nobody keeps
old models for it. What the aggregator does with them: `core.server_step`.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from fedbus.core.layout import Layout

MOST_SAMPLES = 1 << 20
"""Of a larger model every so-manieth element is looked at: a quotient of two sums over a million hardly moves."""


class SecantProbe:
    """Compares each training of a site with the one before; keeps at most 2 x MOST_SAMPLES float32.

    `trainable`: names of the tensors that training moves by gradients; running statistics would drown them.
    """

    def __init__(self, layout: Layout, trainable: Collection[str]) -> None:
        ranges = [layout.slices()[spec.name] for spec in layout.tensors if spec.name in trainable]
        self._index = _sample(ranges)
        self._before: tuple[Tensor, Tensor] | None = None

    def measure(self, base: Tensor, delta: Tensor) -> tuple[float, float]:
        """Return (travel, response) of this training, float32 [numel] both and only read; zeros while there is none.

        Also zeros when the sums are not finite, and when the model has not moved.
        """
        here = (base[self._index], delta[self._index])
        before, self._before = self._before, here
        if before is None:
            return 0.0, 0.0
        moved = (here[0] - before[0]).double()
        travel = float(moved @ moved)
        response = -float((here[1] - before[1]).double() @ moved)
        known = travel > 0.0 and math.isfinite(travel) and math.isfinite(response)
        return (travel, response) if known else (0.0, 0.0)


def _sample(ranges: Collection[tuple[int, int]]) -> Tensor:
    stride = _prime_from(-(-sum(stop - start for start, stop in ranges) // MOST_SAMPLES))
    parts = [torch.arange(start, stop, stride) for start, stop in ranges]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def _prime_from(number: int) -> int:
    """The smallest prime from `number` on (1 for 1): rows of a tensor must not line up with the stride."""
    while any(number % k == 0 for k in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


def trainable(model: nn.Module) -> frozenset[str]:
    """Names of the params that training moves by gradients: not buffers, not what is frozen."""
    return frozenset(name for name, param in model.named_parameters() if param.requires_grad)
