"""Server optimizers: one step per commit, from the mean delta d to new params x.

Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv 2003.00295), algorithm 2; d is minus the pseudo-gradient:

    plain      x += lr d
    momentum   m = momentum m + d                                            x += lr m
    adam       m = beta1 m + (1 - beta1) d   v = beta2 v + (1 - beta2) d^2   x += lr m / (sqrt(v) + eps)
    yogi       m as adam                     v -= (1 - beta2) d^2 sign(v - d^2)   x as adam
    fadas      m, v as adam                  u = max(u, v)                         x += lr m / (sqrt(u) + eps)

FADAS is Wang et al. 2024, "Towards Federated Asynchronous Adaptive Learning" (arXiv 2407.18365): AMSGrad, with a step
that shrinks with the delay. There v and u start at 0, else:

lr is the job's times the `step` that the core decided for this commit (see `core.rules.server_step`).
As in the paper there is no bias correction and v starts at eps^2 (their tau^2), m at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fedbus.tensors.tiles import tiles

if TYPE_CHECKING:
    from fedbus.core.spec.training import ServerOptimizerSpec


class ServerOptimizer(Protocol):
    """Turns the mean delta of a commit into new params; owns its moments."""

    def step_(self, params: Tensor, mean_delta: Tensor, step: float = 1.0) -> None:
        """Update `params` in place from `mean_delta`, both float32 [numel], with lr times `step`.

        `mean_delta` is only read.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the moments by name (not copies): empty before the first step and for plain."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the moments that `state` returned; they become the optimizer's own."""


class Plain:
    """x += lr d."""

    def __init__(self, lr: float) -> None:
        self._lr = lr

    def step_(self, params: Tensor, mean_delta: Tensor, step: float = 1.0) -> None:
        params.add_(mean_delta, alpha=self._lr * step)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        _check_names(state, ())


class Momentum:
    """Heavy ball on the mean delta; `m` is created with the first step."""

    def __init__(self, lr: float, momentum: float) -> None:
        self._lr = lr
        self._momentum = momentum
        self._moments: dict[str, Tensor] = {}

    def step_(self, params: Tensor, mean_delta: Tensor, step: float = 1.0) -> None:
        if not self._moments:
            self._moments = {"m": torch.zeros_like(params)}
        for x, d, m in tiles(params, mean_delta, self._moments["m"]):
            m.mul_(self._momentum).add_(d)
            x.add_(m, alpha=self._lr * step)

    def state(self) -> dict[str, Tensor]:
        return dict(self._moments)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        _check_names(state, ("m",))
        self._moments = dict(state)


class Adaptive:
    """Adam or Yogi, which differ in how v grows; `m` and `v` are created with the first step."""

    def __init__(self, lr: float, beta1: float, beta2: float, eps: float, *, yogi: bool) -> None:
        self._lr = lr
        self._beta1 = beta1
        self._beta2 = beta2
        self._eps = eps
        self._yogi = yogi
        self._moments: dict[str, Tensor] = {}

    def step_(self, params: Tensor, mean_delta: Tensor, step: float = 1.0) -> None:
        if not self._moments:
            self._moments = {"m": torch.zeros_like(params), "v": torch.full_like(params, self._eps**2)}
        for x, d, m, v in tiles(params, mean_delta, self._moments["m"], self._moments["v"]):
            m.mul_(self._beta1).add_(d, alpha=1 - self._beta1)
            square = d * d
            if self._yogi:
                v.addcmul_(square, torch.sign(v - square), value=self._beta2 - 1)
            else:
                v.mul_(self._beta2).add_(square, alpha=1 - self._beta2)
            x.addcdiv_(m, v.sqrt().add_(self._eps), value=self._lr * step)

    def state(self) -> dict[str, Tensor]:
        return dict(self._moments)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        _check_names(state, ("m", "v"))
        self._moments = dict(state)


class Fadas:
    """Adam that divides by the largest v so far, `u` (AMSGrad); its moments are created with the first step."""

    def __init__(self, lr: float, beta1: float, beta2: float, eps: float) -> None:
        self._lr = lr
        self._beta1 = beta1
        self._beta2 = beta2
        self._eps = eps
        self._moments: dict[str, Tensor] = {}

    def step_(self, params: Tensor, mean_delta: Tensor, step: float = 1.0) -> None:
        if not self._moments:
            self._moments = {name: torch.zeros_like(params) for name in ("m", "v", "u")}
        for x, d, m, v, u in tiles(params, mean_delta, *self._moments.values()):
            m.mul_(self._beta1).add_(d, alpha=1 - self._beta1)
            v.mul_(self._beta2).addcmul_(d, d, value=1 - self._beta2)
            torch.maximum(u, v, out=u)
            x.addcdiv_(m, u.sqrt().add_(self._eps), value=self._lr * step)

    def state(self) -> dict[str, Tensor]:
        return dict(self._moments)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        _check_names(state, ("m", "v", "u"))
        self._moments = {name: state[name] for name in ("m", "v", "u") if name in state}


def make_server_optimizer(spec: ServerOptimizerSpec) -> ServerOptimizer:
    """Return the server optimizer that a job spec names; ValueError when its kind is unknown."""
    match spec.kind:
        case "plain":
            return Plain(spec.base_lr)
        case "momentum":
            return Momentum(spec.base_lr, spec.momentum)
        case "adam" | "yogi":
            return Adaptive(spec.base_lr, spec.beta1, spec.beta2, spec.eps, yogi=spec.kind == "yogi")
        case "fadas":
            return Fadas(spec.base_lr, spec.beta1, spec.beta2, spec.eps)
    raise ValueError(f"server optimizer {spec.kind!r} is unknown: expected plain, momentum, adam, yogi or fadas")


def _check_names(state: Mapping[str, Tensor], names: tuple[str, ...]) -> None:
    if state and set(state) != set(names):
        raise ValueError(
            f"optimizer state holds {sorted(state)}, expected {sorted(names)}: is it of another optimizer?"
        )
