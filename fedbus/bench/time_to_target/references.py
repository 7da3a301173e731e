"""Textbook rules that fedbus does not run as they were published, written down for comparison.

What lives here: rules for the simulation's loop, a few lines each, with their paper. What may not: peers (see `peers`).
Textbook FedBuff and FedAvg need no code: they are settings of `buffered` and `sync`, see `rules`.
"""

from __future__ import annotations

from torch import Tensor


class ModelMixing:
    """FedAsync as published (Xie et al. 2019, arXiv 1903.03934): x = (1 - a_s) x + a_s y, a_s = alpha (1 + s)^-0.5.

    y are the site's whole params; fedbus' own `fedasync` adds the delta instead, see `strategies.FedAsync`.
    """

    wait_for_new_version = False

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._params: Tensor | None = None
        self._version = 0

    def on_update(  # noqa: PLR0917 - see `simulation.ForeignRule`
        self, site: str, local_params: Tensor, delta: Tensor, base_version: int, num_examples: int, now: float
    ) -> Tensor | None:
        """Mix the site's params in; float32 [numel], a new tensor."""
        params = local_params - delta if self._params is None else self._params
        share = self._alpha * (1 + self._version - base_version) ** -0.5
        self._params = (1 - share) * params + share * local_params
        self._version += 1
        return self._params
