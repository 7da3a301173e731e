"""How far a commit moves the params, beside the server learning rate: `Committed.step`.

What lives here: the one place where the step is decided, from numbers that facts give again. What may not: what the
mean delta is made of (see `strategies`), the optimizer's own arithmetic (see `tensors.server_optimizer`).

    lr: auto      step = K / N
    kind: fadas   step = 1 / s_max when s_max > tau_c, else 1

K: the size of the buffer that was aimed at; N: the active sites. The params then move per N updates as far as FedAvg
moves them per round with a server learning rate of 1, however small the buffer is. (Measured on digits and a small CNN,
speed ratios 1 to 30: within a small factor of the best fixed step in every case, where any fixed step fails in some.)

s_max: the largest staleness in the buffer. FADAS (Wang et al. 2024, arXiv 2407.18365) writes min(lr, 1 / s_max) for it,
which never binds at the lr of an adaptive optimizer; its released code multiplies, and so does this.
"""

from __future__ import annotations

from fedbus.core.facts import Gauge


def server_step(size: int, active: int, gauge: Gauge | None) -> float:
    """Return the step in (0, 1] of a buffer of `size` for so many active sites."""
    return min(1.0, size / max(1, active))


def delay_adaptive(most_stale: int, *, tau_c: int) -> float:
    """Return the step in (0, 1] of a buffer whose stalest update is `most_stale` versions old."""
    return 1.0 if most_stale <= max(1, tau_c) else 1.0 / most_stale
