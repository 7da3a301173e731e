"""How the deltas of a version's sites lie to its mean delta: the cosine of each, over some elements of all.

    cosine  <d, v> / |d| |v|,   d the sum of a site's weighted deltas in the buffer, v the mean delta of the commit

Of a model with more elements than MOST_ELEMENTS a sample is looked at, whose cosine is off by about 1 / 64. A site has
its own part in v, so that of a version of two sites none is low.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedbus.tensors.samples import sample

MOST_ELEMENTS = 4096
MOST_SITES = 256
"""Of a version of more sites the first are looked at: 4 MiB are held, whatever comes."""


class Cosines:
    """Of one buffer at a time, of vectors float32 [numel]."""

    def __init__(self, numel: int) -> None:
        self._places = sample(0, numel, most=MOST_ELEMENTS)
        self._sums: dict[str, Tensor] = {}
        self.last: dict[str, float] = {}
        """Of the version made last, by site."""

    def fold(self, site: str, delta: Tensor, weight: float) -> None:
        """A delta goes into the buffer with this weight; it is only read."""
        if site in self._sums:
            self._sums[site].add_(delta[self._places], alpha=weight)
        elif len(self._sums) < MOST_SITES:
            self._sums[site] = delta[self._places] * weight

    def commit(self, mean: Tensor) -> None:
        """The buffer becomes a version along this mean delta, which is only read."""
        whole = mean[self._places].double()
        found = ((site, _cosine(own.double(), whole)) for site, own in self._sums.items())
        self.last = {site: cosine for site, cosine in found if math.isfinite(cosine)}
        self._sums = {}


def _cosine(one: Tensor, other: Tensor) -> float:
    """NaN when one of them is nothing, or not finite."""
    lengths = float(torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other))
    return float(one @ other) / lengths if lengths > 0.0 else math.nan
