"""What a site's two last trainings say together: how much less it asks for, for how far the model has come.

With a base b and the delta d that training from it gave, and the same of the training before (b', d'),

    travel   = |b - b'|^2                     response = -<d - d', b - b'>

On a quadratic loss local training gives d = A (x* - b), A = I - (I - lr H)^steps, and response / travel is the
Rayleigh quotient of A along the way that the global model went: the secant of Barzilai and Borwein (1988, IMA J. Numer.
Anal. 8), taken of the training as a whole. A site knows both sides of it exactly and tells two numbers; nobody keeps
old models for it. What the aggregator does with them: `core.rules.server_step`.

The aggregator moves the model by coded deltas. What a coarse code does to them, the response makes up for
(`Distortion.counted`): with target t = delta (+ residual), sent c, left out t - c,

    topk    response |t|^2 / (|t|^2 - |t - c|^2)    what is held back comes later: so many times longer is the delay
                                                    s + 1 of the loop, and so much smaller m(s)
    int4    response (|t|^2 + |t - c|^2) / |t|^2    noise makes the model travel farther, but the response to it is
                                                    next to nothing: most directions are flat
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fedbus.core.protocol.layout import Layout
from fedbus.tensors.samples import sample

MOST_SAMPLES = 1 << 20
"""Of a larger model every so-manieth element is looked at: a quotient of two sums over a million hardly moves."""

LEAST_SENT = 0.01
"""An update that brings a smaller share of its target's squared norm counts as though it brought this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distortion:
    """Squared norms of what an update was to bring, `whole`, and of what its code left out, `left`; see the module.

    comes_later: error feedback brings what was left out; otherwise it is noise. Zeros: next to nothing is left out.
    """

    whole: float = 0.0
    left: float = 0.0
    comes_later: bool = False

    def counted(self, response: float) -> float:
        """Return the response of the training that was coded, as the aggregator is to count it."""
        if not 0.0 < self.left < math.inf or not 0.0 < self.whole < math.inf:
            return response
        share = self.left / self.whole
        return response / max(1.0 - share, LEAST_SENT) if self.comes_later else response * (1.0 + share)


class SecantProbe:
    """Compares each training of a site with the one before; keeps at most 2 x MOST_SAMPLES float32.

    Only what is learnt is looked at: running statistics would drown it.
    """

    def __init__(self, layout: Layout) -> None:
        self._sample = sample(layout.value_numel, layout.numel, most=MOST_SAMPLES)
        self._before: tuple[Tensor, Tensor] | None = None

    def measure(self, base: Tensor, delta: Tensor) -> tuple[float, float]:
        """Return (travel, response) of this training, float32 [numel] both and only read; zeros while there is none.

        Also zeros when the sums are not finite, and when the model has not moved.
        """
        here = (base[self._sample].clone(), delta[self._sample].clone())
        before, self._before = self._before, here
        if before is None:
            return 0.0, 0.0
        moved = (here[0] - before[0]).double()
        travel = float(moved @ moved)
        response = -float((here[1] - before[1]).double() @ moved)
        known = travel > 0.0 and math.isfinite(travel) and math.isfinite(response)
        return (travel, response) if known else (0.0, 0.0)
