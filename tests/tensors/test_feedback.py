"""Error feedback: nothing that was left out of an update is lost, and what was refused was never sent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.tensors.codec import decode_all_, encode
from fedbus.tensors.feedback import ErrorFeedback
from fedbus.tensors.secant import Distortion

LAYOUT = Layout.of([TensorSpec(name=str(n), shape=(n,), dtype="float32") for n in (100, 9000)])


def deltas(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(LAYOUT.numel, generator=generator) * 10.0 ** -(i % 3) for i in range(count)]


def decoded(frames: list[bytes]) -> Tensor:
    out = torch.empty(LAYOUT.numel)
    decode_all_(out, frames, LAYOUT)
    return out


def residual_of(feedback: ErrorFeedback) -> Tensor:
    assert feedback.state is not None
    return feedback.state


def test_all_that_was_sent_and_the_residual_are_all_deltas() -> None:
    feedback = ErrorFeedback(LAYOUT, Code.TOPK)
    sent, total = torch.zeros(LAYOUT.numel, dtype=torch.float64), torch.zeros(LAYOUT.numel, dtype=torch.float64)

    for seed, delta in enumerate(deltas(50)):
        sent += decoded(feedback.encode(delta, seed=seed))
        feedback.accepted(seed)
        total += delta

    # then they agree to the rounding of float32, some fifty roundings of numbers around 10
    assert (sent + residual_of(feedback) - total).abs().max() < 50 * 10 * 2.0**-24
    assert residual_of(feedback).abs().max() > 0.1


def test_in_whole_numbers_the_identity_is_exact() -> None:
    # given deltas in steps of 2**-10, and as many kept as there are values, so that scales stay powers of two
    generator = torch.Generator().manual_seed(0)
    residual, sent, total = (torch.zeros(LAYOUT.numel) for _ in range(3))

    for seed in range(50):
        delta = torch.randint(-127, 128, (LAYOUT.numel,), generator=generator) / 1024.0
        total += delta
        target = residual + delta
        frames = list(encode(target, LAYOUT, Code.TOPK, seed=seed, to_hidden=True))
        sent += decoded(frames)
        residual = target - decoded(frames)

    # then float32 rounds nowhere
    assert torch.equal(sent + residual, total)


def test_with_feedback_a_value_that_is_never_large_arrives_in_the_end() -> None:
    # given one small value that never changes its sign beside large ones that do
    feedback = ErrorFeedback(LAYOUT, Code.TOPK)
    arrived = lost = 0.0

    generator = torch.Generator().manual_seed(0)
    for seed in range(300):
        delta = torch.randn(LAYOUT.numel, generator=generator)
        delta[5000] = 0.05
        arrived += decoded(feedback.encode(delta, seed=seed))[5000].item()
        lost += decoded(list(encode(delta, LAYOUT, Code.TOPK, seed=seed)))[5000].item()

    assert lost == 0.0
    assert abs(arrived + residual_of(feedback)[5000].item() - 300 * 0.05) < 1e-3


def test_small_tensors_leave_nothing_behind() -> None:
    feedback = ErrorFeedback(LAYOUT, Code.TOPK)
    for seed, delta in enumerate(deltas(5)):
        feedback.encode(delta, seed=seed)
        assert not residual_of(feedback)[: LAYOUT.exact_numel].any()


def test_a_refused_update_gives_back_the_residual_to_the_bit() -> None:
    feedback = ErrorFeedback(LAYOUT, Code.TOPK)
    first, second, third = deltas(3)
    feedback.encode(first, seed=1)
    before = residual_of(feedback).clone()

    feedback.encode(second, seed=2)
    feedback.refused(2)
    feedback.refused(2)  # the receipt came twice

    assert torch.equal(residual_of(feedback), before)
    # and what follows is as if it had never been
    other = ErrorFeedback(LAYOUT, Code.TOPK)
    other.encode(first, seed=1)
    assert feedback.encode(third, seed=3) == other.encode(third, seed=3)


def test_a_refusal_that_comes_late_takes_back_no_more_than_its_own_share() -> None:
    # given three updates on their way
    feedback = ErrorFeedback(LAYOUT, Code.TOPK)
    first, second, third = deltas(3)
    sent = [decoded(feedback.encode(delta, seed=seed)) for seed, delta in enumerate((first, second, third))]

    # when the one in the middle is refused, and then the last one
    feedback.accepted(0)
    feedback.refused(1)
    assert torch.allclose(residual_of(feedback) + sent[0] + sent[2], first + third, atol=1e-5)
    feedback.refused(2)

    # then what was accepted and the residual are the first delta
    assert torch.allclose(residual_of(feedback) + sent[0], first, atol=1e-5)


@pytest.mark.parametrize("code", [code for code in Code if not code.is_biased])
def test_codes_that_are_not_biased_need_no_feedback_and_hold_nothing(code: Code) -> None:
    feedback = ErrorFeedback(LAYOUT, code)
    (delta,) = deltas(1)

    assert feedback.encode(delta, seed=7) == list(encode(delta, LAYOUT, code, seed=7))
    feedback.refused(7)
    assert feedback.state is None


@pytest.mark.parametrize("code", Code)
def test_the_delta_is_only_read(code: Code) -> None:
    (delta,) = deltas(1)
    before = delta.clone()
    ErrorFeedback(LAYOUT, code).encode(delta, seed=0)
    assert torch.equal(delta, before)


@pytest.mark.parametrize("code", [Code.INT4, Code.TOPK])
def test_the_distortion_of_a_coarse_code_is_what_its_frames_left_out(code: Code) -> None:
    feedback, left = ErrorFeedback(LAYOUT, code), torch.zeros(LAYOUT.numel)
    for seed, delta in enumerate(deltas(3)):
        target = delta + left if code.is_biased else delta
        left = target - decoded(feedback.encode(delta, seed=seed))
        assert feedback.distortion.whole == pytest.approx(float(target.double().square().sum()), rel=1e-5)
        assert feedback.distortion.left == pytest.approx(float(left.double().square().sum()), rel=1e-4)
        assert feedback.distortion.comes_later == code.is_biased


@pytest.mark.parametrize("code", [code for code in Code if not code.is_coarse])
def test_codes_that_are_not_coarse_leave_out_less_than_a_thousandth(code: Code) -> None:
    feedback, (delta,) = ErrorFeedback(LAYOUT, code), deltas(1)
    left = delta - decoded(feedback.encode(delta, seed=0))
    assert left.square().sum() < 1e-3 * delta.square().sum()
    assert feedback.distortion == Distortion()
