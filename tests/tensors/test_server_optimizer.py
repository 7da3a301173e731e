from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedbus.core.spec.training import ServerOptimizerSpec
from fedbus.tensors.server_optimizer import make_server_optimizer

NUMEL = 70_001
STEPS = 7


def mean_deltas() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(NUMEL, generator=generator) * 10 ** (-k / 3) for k in range(STEPS)]


def spec(**fields: Any) -> ServerOptimizerSpec:
    return ServerOptimizerSpec.model_validate(fields)


def textbook(chosen: ServerOptimizerSpec, x: np.ndarray) -> np.ndarray:
    """Algorithm 2 of Reddi et al. 2021 in float64, written for minimising along the pseudo-gradient g = -mean delta."""
    kind, lr, beta1, beta2, eps = chosen.kind, chosen.base_lr, chosen.beta1, chosen.beta2, chosen.eps
    m = np.zeros_like(x)
    v = np.full_like(x, 0.0 if kind == "fadas" else eps**2)
    u = v
    for d in mean_deltas():
        g = -d.double().numpy()
        if kind == "plain":
            x = x - lr * g
        elif kind == "momentum":
            m = chosen.momentum * m + g
            x = x - lr * m
        elif kind == "fadas":
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            u = np.maximum(u, v)
            x = x - lr * m / (np.sqrt(u) + eps)
        else:
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2 if kind == "adam" else v - (1 - beta2) * g**2 * np.sign(v - g**2)
            x = x - lr * m / (np.sqrt(v) + eps)
    return x


@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi", "fadas"])
@pytest.mark.parametrize("fields", [{}, {"lr": 0.3, "beta1": 0.5, "beta2": 0.95, "eps": 0.1, "momentum": 0.6}])
def test_steps_follow_the_paper(kind: str, fields: dict[str, float]) -> None:
    chosen = spec(kind=kind, **fields)
    optimizer = make_server_optimizer(chosen)
    start = torch.randn(NUMEL, generator=torch.Generator().manual_seed(9))
    params = start.clone()

    for mean_delta in mean_deltas():
        optimizer.step_(params, mean_delta)

    expected = textbook(chosen, start.double().numpy())
    np.testing.assert_allclose(params.double().numpy(), expected, rtol=2e-5, atol=2e-5 * chosen.base_lr)


def test_plain_with_lr_1_adds_the_mean_delta() -> None:
    params, delta = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -4.0])

    make_server_optimizer(spec(kind="plain")).step_(params, delta)

    assert params.tolist() == [1.5, -2.0]
    assert delta.tolist() == [0.5, -4.0]


@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi", "fadas"])
def test_a_restored_optimizer_goes_on_bit_for_bit(kind: str) -> None:
    first, *rest = mean_deltas()
    optimizer = make_server_optimizer(spec(kind=kind))
    params = torch.ones(NUMEL)
    optimizer.step_(params, first)

    restored = make_server_optimizer(spec(kind=kind))
    restored.load_state({name: tensor.clone() for name, tensor in optimizer.state().items()})
    again = params.clone()
    for mean_delta in rest:
        optimizer.step_(params, mean_delta)
        restored.step_(again, mean_delta)

    assert torch.equal(params, again)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("plain", set()),
        ("momentum", {"m"}),
        ("adam", {"m", "v"}),
        ("yogi", {"m", "v"}),
        ("fadas", {"m", "v", "u"}),
    ],
)
def test_state_names(kind: str, names: set[str]) -> None:
    optimizer = make_server_optimizer(spec(kind=kind))
    assert optimizer.state() == {}

    optimizer.step_(torch.zeros(3), torch.ones(3))

    assert set(optimizer.state()) == names


def test_state_of_another_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds \['m'\], expected \['m', 'v'\]"):
        make_server_optimizer(spec(kind="adam")).load_state({"m": torch.zeros(3)})


def test_fadas_divides_by_the_largest_second_moment_so_far() -> None:
    # given one long delta and many short ones after it
    optimizer = make_server_optimizer(spec(kind="fadas"))
    params = torch.zeros(1)
    optimizer.step_(params, torch.tensor([1.0]))
    largest = optimizer.state()["u"].clone()
    for _ in range(200):
        optimizer.step_(params, torch.tensor([1e-3]))
    # then v has forgotten the long one, and what is divided by has not
    state = optimizer.state()
    assert state["v"].item() < largest.item() / 5
    assert torch.equal(state["u"], largest)


@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi", "fadas"])
def test_a_shorter_step_moves_the_params_less_and_the_moments_alike(kind: str) -> None:
    whole, half = make_server_optimizer(spec(kind=kind)), make_server_optimizer(spec(kind=kind))
    far, near = torch.zeros(NUMEL), torch.zeros(NUMEL)
    delta = mean_deltas()[0]
    whole.step_(far, delta)
    half.step_(near, delta, 0.5)
    torch.testing.assert_close(near, far / 2)
    for name, moment in whole.state().items():
        assert torch.equal(moment, half.state()[name])
