"""A training that ends without finite params: what the error says to look at."""

from __future__ import annotations

import math

import pytest
import torch

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.training.finite import not_finite_error
from fedbus.training.losses import SCAN_EVERY, Losses

LAYOUT = Layout.of([TensorSpec(name=name, shape=(2,), dtype="float32") for name in ("a", "b", "c")])
NAN = math.nan


def flat(*bad: str) -> torch.Tensor:
    values = torch.zeros(6)
    for name in bad:
        values[LAYOUT.slices()[name][0]] = NAN
    return values


def error(*losses: float, delta: tuple[str, ...] = ("b",), base: tuple[str, ...] = ()) -> str:
    reported = Losses()
    for value in losses:
        reported.add(torch.tensor(value))
    return str(not_finite_error(flat(*delta), flat(*base), LAYOUT, reported, steps=len(losses) or 4))


@pytest.mark.parametrize(
    ("losses", "first", "never"),
    [
        (
            [NAN, NAN],
            "the loss was not finite at the first step, before anything was learnt: look for missing",
            "lower",
        ),
        ([math.inf], "the loss was not finite at the first step", "lower"),
        (
            [0.7, 0.6, NAN],
            "the loss was 0.6 at step 2 and not finite at step 3: look for missing or infinite",
            "diverged",
        ),
        (
            [0.7, 80.0, 9e9, math.inf],
            "training diverged: the loss was 0.7 at step 1, 9e+09 at step 3 and not",
            "inputs",
        ),
        ([0.7, 0.6], "training diverged: params are not finite after 2 steps though every loss was finite", "inputs"),
        ([], "params are not finite after 4 steps, and the task reports no loss", "diverged"),
    ],
)
def test_what_to_look_at_first_depends_on_when_the_loss_ceased_to_be_finite(
    losses: list[float], first: str, never: str
) -> None:
    said = error(*losses)
    assert said.startswith(first)
    assert never not in said
    assert said.endswith("(not finite: b)")


def test_a_model_that_was_not_finite_before_is_not_the_site_s_fault() -> None:
    said = error(NAN, delta=("a", "b"), base=("a",))
    assert said.startswith("the model was not finite before the first step: a; nothing at this site mends that")


def test_of_many_tensors_some_are_named_and_the_rest_is_counted() -> None:
    layout = Layout.of([TensorSpec(name=f"t{n}", shape=(1,), dtype="float32") for n in range(9)])
    said = str(not_finite_error(torch.full((9,), NAN), torch.zeros(9), layout, Losses(), steps=1))
    assert said.endswith("(not finite: t0, t1, t2 and 6 more)")


def test_the_step_is_found_among_more_losses_than_are_looked_at_together() -> None:
    reported = Losses()
    for step in range(1, 3 * SCAN_EVERY):
        reported.add(torch.tensor(NAN if step >= 2 * SCAN_EVERY + 7 else float(step)))
    assert reported.first_bad == 2 * SCAN_EVERY + 7
    assert reported.last_good == 2 * SCAN_EVERY + 6
    assert reported.first == 1.0


def test_finite_losses_have_no_bad_step_and_a_mean() -> None:
    reported = Losses()
    for value in (1.0, 2.0, 6.0):
        reported.add(torch.tensor(value))
    assert (reported.first_bad, reported.last_good, reported.mean) == (None, 6.0, 3.0)
