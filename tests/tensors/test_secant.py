"""The secant of two trainings of a site, against local training on a quadratic loss, where it is known."""

from __future__ import annotations

import pytest
import torch

from fedbus.core.protocol.layout import Kind, Layout, TensorSpec
from fedbus.tensors.secant import LEAST_SENT, MOST_SAMPLES, Distortion, SecantProbe


def layout(*names: str, numel: int = 50) -> Layout:
    return Layout.of([TensorSpec(name=name, shape=(numel,), dtype="float32") for name in names])


def trained(base: torch.Tensor, curvature: torch.Tensor, *, lr: float = 0.1, steps: int = 5) -> torch.Tensor:
    """Gradient descent on sum(curvature x^2) / 2: the delta."""
    x = base.clone()
    for _ in range(steps):
        x -= lr * curvature * x
    return x - base


def test_on_a_quadratic_it_is_what_training_answers_per_distance() -> None:
    model = layout("w")
    probe = SecantProbe(model)
    curvature = torch.full((50,), 2.0)
    first, second = torch.randn(50), torch.randn(50)
    assert probe.measure(first, trained(first, curvature)) == (0.0, 0.0)
    travel, response = probe.measure(second, trained(second, curvature))
    assert travel == pytest.approx(float((second - first).square().sum()), rel=1e-5)
    assert response / travel == pytest.approx(1 - (1 - 0.1 * 2.0) ** 5, rel=1e-4)


def test_it_is_that_of_the_direction_the_model_went() -> None:
    probe = SecantProbe(layout("w"))
    curvature = torch.cat([torch.full((25,), 0.1), torch.full((25,), 5.0)])
    base, flat_way = torch.randn(50), torch.cat([torch.ones(25), torch.zeros(25)])
    probe.measure(base, trained(base, curvature))
    travel, response = probe.measure(base + flat_way, trained(base + flat_way, curvature))
    assert response / travel == pytest.approx(1 - (1 - 0.1 * 0.1) ** 5, rel=1e-3)


def test_a_model_that_has_not_moved_and_sums_that_are_not_finite_say_nothing() -> None:
    probe = SecantProbe(layout("w"))
    base = torch.randn(50)
    for delta in (torch.randn(50), torch.randn(50), torch.full((50,), torch.inf)):
        assert probe.measure(base, delta) == (0.0, 0.0)
    assert probe.measure(base + 1, torch.zeros(50)) == (0.0, 0.0)


def test_buffers_and_frozen_params_do_not_count() -> None:
    frozen = TensorSpec(name="b", shape=(50,), dtype="float32", kind=Kind.FROZEN)
    probe = SecantProbe(Layout.of([frozen, *layout("a").tensors]))
    probe.measure(torch.zeros(100), torch.zeros(100))
    moved = torch.cat([torch.full((50,), 1000.0), torch.ones(50)])
    assert probe.measure(moved, -0.5 * moved) == pytest.approx((50.0, 25.0))


def test_of_a_large_model_a_sample_gives_nearly_the_same() -> None:
    numel = 3 * MOST_SAMPLES
    probe = SecantProbe(layout("w", numel=numel))
    curvature = torch.rand(numel) * 3
    base, other = torch.randn(numel), torch.randn(numel)
    probe.measure(base, trained(base, curvature))
    travel, response = probe.measure(other, trained(other, curvature))
    whole = 1 - (1 - 0.1 * curvature) ** 5
    exact = float((whole * (other - base).square()).sum() / (other - base).square().sum())
    assert travel < 2 * numel * 0.6  # not all of it was looked at
    assert response / travel == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(
    ("distortion", "times"),
    [
        (Distortion(), 1.0),
        (Distortion(whole=4.0, left=3.0, comes_later=True), 4.0),  # a quarter is sent: four times the delay
        (Distortion(whole=4.0, left=4.0, comes_later=True), 1 / LEAST_SENT),
        (Distortion(whole=4.0, left=1.0), 1.25),  # a quarter more travel, which is noise
        (Distortion(whole=0.0, left=0.0, comes_later=True), 1.0),
        (Distortion(whole=float("nan"), left=1.0), 1.0),
    ],
)
def test_what_a_code_left_out_makes_the_response_count_for_more(distortion: Distortion, times: float) -> None:
    assert distortion.counted(0.5) == pytest.approx(0.5 * times)
    assert distortion.counted(-0.5) == pytest.approx(-0.5 * times)
