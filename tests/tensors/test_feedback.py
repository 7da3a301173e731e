"""Error feedback: nothing that was left out of an update is lost, and what was refused was never sent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.tensors.codec import decode_all_, encode
from fedbus.tensors.feedback import encode_update_
from fedbus.tensors.secant import Distortion

LAYOUT = Layout.of([TensorSpec(name=str(n), shape=(n,), dtype="float32") for n in (100, 9000)])


def deltas(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(LAYOUT.numel, generator=generator) * 10.0 ** -(i % 3) for i in range(count)]


def decoded(frames: list[bytes]) -> Tensor:
    out = torch.empty(LAYOUT.numel)
    decode_all_(out, frames, LAYOUT)
    return out


class Sender:
    """A site whose updates are all folded: the residual is what the last one left out."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.residual = torch.zeros(LAYOUT.numel)
        self.distortion = Distortion()

    def send(self, delta: Tensor, *, seed: int) -> list[bytes]:
        target = self.residual + delta
        frames, self.distortion = encode_update_(target, LAYOUT, self.code, take=list, seed=seed)
        if self.code.is_biased:
            self.residual = target
        return frames


def test_all_that_was_sent_and_the_residual_are_all_deltas() -> None:
    site = Sender(Code.TOPK)
    sent, total = torch.zeros(LAYOUT.numel, dtype=torch.float64), torch.zeros(LAYOUT.numel, dtype=torch.float64)

    for seed, delta in enumerate(deltas(50)):
        sent += decoded(site.send(delta, seed=seed))
        total += delta

    # then they agree to the rounding of float32, some fifty roundings of numbers around 10
    assert (sent + site.residual - total).abs().max() < 50 * 10 * 2.0**-24
    assert site.residual.abs().max() > 0.1


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
    site = Sender(Code.TOPK)
    arrived = lost = 0.0

    generator = torch.Generator().manual_seed(0)
    for seed in range(300):
        delta = torch.randn(LAYOUT.numel, generator=generator)
        delta[5000] = 0.05
        arrived += decoded(site.send(delta, seed=seed))[5000].item()
        lost += decoded(list(encode(delta, LAYOUT, Code.TOPK, seed=seed)))[5000].item()

    assert lost == 0.0
    assert abs(arrived + site.residual[5000].item() - 300 * 0.05) < 1e-3


def test_small_tensors_leave_nothing_behind() -> None:
    site = Sender(Code.TOPK)
    for seed, delta in enumerate(deltas(5)):
        site.send(delta, seed=seed)
        assert not site.residual[: LAYOUT.exact_numel].any()


@pytest.mark.parametrize("code", [code for code in Code if not code.is_coarse])
def test_codes_that_are_not_coarse_only_read_the_delta(code: Code) -> None:
    (delta,) = deltas(1)
    before = delta.clone()

    frames, _ = encode_update_(delta, LAYOUT, code, take=list, seed=7)

    assert frames == list(encode(delta, LAYOUT, code, seed=7))
    assert torch.equal(delta, before)


@pytest.mark.parametrize("code", [Code.INT4, Code.TOPK])
def test_the_distortion_of_a_coarse_code_is_what_its_frames_left_out(code: Code) -> None:
    site, left = Sender(code), torch.zeros(LAYOUT.numel)
    for seed, delta in enumerate(deltas(3)):
        target = delta + left if code.is_biased else delta
        left = target - decoded(site.send(delta, seed=seed))
        assert site.distortion.whole == pytest.approx(float(target.double().square().sum()), rel=1e-5)
        assert site.distortion.left == pytest.approx(float(left.double().square().sum()), rel=1e-4)
        assert site.distortion.comes_later == code.is_biased


@pytest.mark.parametrize("code", [code for code in Code if not code.is_coarse])
def test_codes_that_are_not_coarse_leave_out_less_than_a_thousandth(code: Code) -> None:
    site, (delta,) = Sender(code), deltas(1)
    left = delta - decoded(site.send(delta, seed=0))
    assert left.square().sum() < 1e-3 * delta.square().sum()
    assert site.distortion == Distortion()
