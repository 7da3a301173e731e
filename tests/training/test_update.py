"""From params to frames: what each step on the way sees of the one before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Kind, Layout, TensorSpec
from fedbus.errors import TaskError
from fedbus.tensors.codec import decode_change_
from fedbus.training.losses import Losses
from fedbus.training.update import Filter, UpdateMaker

LAYOUT = Layout.of(
    [
        TensorSpec(name="mean", shape=(2,), dtype="float32", kind=Kind.BUFFER),
        TensorSpec(name="backbone", shape=(3,), dtype="float32", kind=Kind.FROZEN),
        TensorSpec(name="small", shape=(2,), dtype="float32"),
        TensorSpec(name="w", shape=(5000,), dtype="float32"),
    ]
)
EFFORT = Effort(num_examples=7, steps=3, seconds=1.5, metrics={"loss": 0.25})


def flat(value: float, *, mean: float = 0.0) -> Tensor:
    made = torch.full((LAYOUT.numel,), value)
    made[: LAYOUT.value_numel] = mean
    return made


class Remembered:
    """A residual of which nothing is ever taken back."""

    def __init__(self) -> None:
        self.left = torch.zeros(LAYOUT.numel)

    def add_to_(self, delta: Tensor) -> None:
        delta.add_(self.left)

    def keep(self, left: Tensor) -> None:
        self.left = left.clone()


class Maker:
    """A site that makes updates; `sent` is what the last one brings."""

    def __init__(
        self,
        code: Code = Code.FP32,
        *,
        filters: Sequence[Filter] = (),
        residual: bool = False,
        frozen: Sequence[str] = (),
    ) -> None:
        self.residual = Remembered() if residual else None
        self.maker = UpdateMaker(LAYOUT, code, chunk_bytes=1 << 20, filters=filters, frozen=frozen)
        self.sent = torch.zeros(LAYOUT.numel)

    def make(self, params: Tensor, base: Tensor) -> Effort:
        frames, effort = self.maker.make_(
            params.clone(), base, EFFORT, losses=Losses(), seed=1, take=list, residual=self.residual
        )
        self.sent = torch.zeros(LAYOUT.numel)
        decode_change_(self.sent, frames, LAYOUT)
        return effort


def test_what_is_learnt_travels_as_a_difference_and_values_as_they_are() -> None:
    site = Maker()

    site.make(flat(5.0, mean=3.0), flat(4.0, mean=1.0))

    assert torch.equal(site.sent, flat(1.0, mean=3.0))


def test_no_update_brings_anything_of_what_a_job_has_frozen() -> None:
    base, backbone = flat(4.0, mean=1.0), slice(*LAYOUT.slices()["backbone"])
    params = flat(5.0, mean=1.0)
    params[backbone] = 9.0

    site, free = Maker(frozen=["backbone"]), Maker()
    site.make(params, base)
    free.make(params, base)

    assert not site.sent[: LAYOUT.value_numel].any()  # not even as values: no frame of them was sent
    assert free.sent[backbone].eq(9.0).all()


def test_the_effort_is_that_of_the_training_with_the_secant_of_the_site() -> None:
    site = Maker()

    assert site.make(flat(1.0), flat(0.0)) == EFFORT

    # when the model has moved by 1 in 5002 places, and the training asks for a quarter less
    effort = site.make(flat(1.75), flat(1.0))
    assert (effort.travel, effort.response) == (LAYOUT.learnt_numel, 0.25 * LAYOUT.learnt_numel)
    assert (effort.num_examples, effort.steps, effort.seconds, effort.metrics) == (7, 3, 1.5, {"loss": 0.25})


def test_filters_follow_each_other_and_decide_what_is_sent() -> None:
    site = Maker(filters=[lambda delta: delta.add_(1.0), lambda delta: 2.0 * delta])

    site.make(flat(5.0), flat(4.0))

    assert torch.equal(site.sent[LAYOUT.value_numel :], torch.full((LAYOUT.learnt_numel,), 4.0))


def test_the_secant_says_nothing_that_the_filters_took_away() -> None:
    site = Maker(filters=[torch.ones_like])

    site.make(flat(5.0), flat(4.0))
    effort = site.make(flat(9.0), flat(6.0))

    assert effort.travel > 0.0
    assert effort.response == 0.0


def test_the_residual_joins_what_the_filters_gave_and_is_no_part_of_the_secant() -> None:
    generator = torch.Generator().manual_seed(0)
    site, total, sent = Maker(Code.TOPK, filters=[lambda delta: 0.5 * delta], residual=True), flat(0.0), flat(0.0)
    for _ in range(5):
        delta = torch.randn(LAYOUT.numel, generator=generator)
        site.make(delta, flat(0.0))
        total += 0.5 * delta
        sent += site.sent

    assert site.residual is not None
    assert site.residual.left[LAYOUT.exact_numel :].abs().max() > 0.1
    assert torch.allclose((sent + site.residual.left)[LAYOUT.value_numel :], total[LAYOUT.value_numel :], atol=1e-5)
    assert site.make(flat(1.0), flat(0.0)).travel == 0.0


def test_params_that_are_not_finite_are_an_error_before_any_filter_sees_them() -> None:
    seen: list[Tensor] = []

    def watching(delta: Tensor) -> Tensor:
        seen.append(delta)
        return delta

    with pytest.raises(TaskError, match=r"not finite after 3 steps.*mean"):
        Maker(filters=[watching]).make(flat(1.0, mean=math.nan), flat(0.0))

    assert seen == []


def test_the_secant_passes_over_a_training_that_was_an_error() -> None:
    site = Maker()
    site.make(flat(1.0), flat(0.0))
    with pytest.raises(TaskError):
        site.make(flat(math.inf), flat(5.0))

    # then it compares with the first training: the model is 1 farther, and the delta 1 less
    assert site.make(flat(1.0), flat(1.0)).response == LAYOUT.learnt_numel
