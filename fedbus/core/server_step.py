"""How far a commit moves the params when the job names no server learning rate: `Committed.step`.

What lives here: the one place where the step is decided, from numbers that facts give again. What may not: what the
mean delta is made of (see `strategies`), the optimizer's own arithmetic (see `tensors.server_optimizer`).

    step = K / N

K: the size of the buffer that was aimed at; N: the active sites. The params then move per N updates as far as FedAvg
moves them per round with a server learning rate of 1, however small the buffer is. (Measured on digits and a small CNN,
speed ratios 1 to 30: within a small factor of the best fixed step in every case, where any fixed step fails in some.)
"""

from __future__ import annotations

from fedbus.core.facts import Gauge


def server_step(size: int, active: int, gauge: Gauge | None) -> float:
    """Return the step in (0, 1] of a buffer of `size` for so many active sites."""
    return min(1.0, size / max(1, active))
