"""Robust rules on tensors: many deltas read at once, piece by piece, against plain formulas in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import DecodeError
from fedbus.tensors.codec import decode_all_, encode
from fedbus.tensors.robust import SLAB, Slot, gram, mean_, median_, trimmed_mean_

LAYOUT = Layout.of(
    [
        TensorSpec(name="w", shape=(300, 500), dtype="float32"),
        TensorSpec(name="b", shape=(500,), dtype="float32"),
    ]
)
CHUNKS = (1 << 14, 40_000, 1 << 17)


def normal(seed: int) -> Tensor:
    return torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(seed))


def frames(delta: Tensor, chunk_bytes: int = 1 << 15) -> list[bytes]:
    return list(encode(delta, LAYOUT, Code.FP32, chunk_bytes=chunk_bytes, seed=0))


def slots(deltas: list[Tensor]) -> list[Slot]:
    """One delta each, every body cut into frames of another size."""
    return [Slot(bodies=((1.0, frames(delta, CHUNKS[i % len(CHUNKS)])),)) for i, delta in enumerate(deltas)]


def stacked(deltas: list[Tensor]) -> np.ndarray:
    return torch.stack(deltas).double().numpy()


def empty() -> Tensor:
    return torch.full((LAYOUT.numel,), float("nan"))


@pytest.fixture(params=[5, 6, 7], ids=lambda count: f"{count} sites")
def deltas(request: pytest.FixtureRequest) -> list[Tensor]:
    return [normal(seed) for seed in range(request.param)]


def test_the_test_has_more_than_one_slab_and_frames_of_many_sizes():
    assert LAYOUT.numel > 2 * SLAB
    assert len({len(frames(normal(0), chunk)) for chunk in CHUNKS}) == len(CHUNKS)


def test_inner_products(deltas):
    rows = stacked(deltas)
    np.testing.assert_allclose(gram(slots(deltas), LAYOUT), rows @ rows.T, rtol=1e-12, atol=1e-9)


def test_median_of_each_coordinate(deltas):
    found = median_(empty(), slots(deltas), LAYOUT)
    np.testing.assert_allclose(found.double().numpy(), np.median(stacked(deltas), axis=0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("trim", [0, 1, 2])
def test_trimmed_mean_of_each_coordinate(deltas, trim):
    found = trimmed_mean_(empty(), slots(deltas), LAYOUT, trim=trim)
    ranked = np.sort(stacked(deltas), axis=0)
    expected = ranked[trim : len(deltas) - trim].mean(axis=0)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_two_that_lie_do_not_move_the_trimmed_mean_out_of_the_honest_range():
    honest = [normal(seed) for seed in range(5)]
    lying = [torch.full((LAYOUT.numel,), 1e30), -1e30 * normal(9).sign()]
    for found in (
        trimmed_mean_(empty(), slots(honest + lying), LAYOUT, trim=2),
        median_(empty(), slots(lying + honest), LAYOUT),
    ):
        assert bool((found >= torch.stack(honest).min(dim=0).values).all())
        assert bool((found <= torch.stack(honest).max(dim=0).values).all())


def test_several_updates_of_one_site_are_one_delta():
    # given a site with two updates, half each, and two others
    slot = Slot(bodies=((0.5, frames(normal(0))), (0.5, frames(normal(1), 1 << 17))))
    others = slots([normal(2), normal(3)])
    # then it has one vote
    found = median_(empty(), [slot, *others], LAYOUT)
    expected = torch.stack([0.5 * normal(0) + 0.5 * normal(1), normal(2), normal(3)]).median(dim=0).values
    assert torch.equal(found, expected)


def test_mean_is_the_weighted_sum_over_the_normaliser():
    weighted = [Slot(bodies=((weight, frames(normal(i))),)) for i, weight in enumerate((0.5, 2.0, 3.5))]
    found = mean_(empty(), weighted, LAYOUT, normaliser=6.0)
    expected = (0.5 * normal(0).double() + 2.0 * normal(1).double() + 3.5 * normal(2).double()) / 6.0
    np.testing.assert_allclose(found.double().numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_bodies_are_read_once_and_a_frame_at_a_time():
    # given bodies that say when a frame of theirs is taken
    taken: list[int] = []

    def body(index: int) -> Iterator[bytes]:
        for frame in frames(normal(index), 1 << 14):
            taken.append(index)
            yield frame

    median_(empty(), [Slot(bodies=((1.0, body(i)),)) for i in range(3)], LAYOUT)
    # then no body is ever further ahead than one slab and a frame
    each = len(frames(normal(0), 1 << 14))
    assert sorted(taken) == sorted([0, 1, 2] * each)
    slab_frames = SLAB // ((1 << 14) // 4) + 2
    for end in range(len(taken)):
        counts = [taken[:end].count(i) for i in range(3)]
        assert max(counts) - min(counts) <= slab_frames


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda body: body[:-1], "some are missing"),
        (lambda body: [body[0], *body[2:]], "the next frame must start at element"),
        (lambda body: [b"no frame", *body[1:]], "frame"),
    ],
    ids=["cut off", "a frame is missing", "garbage"],
)
def test_a_damaged_body_is_an_error(damage, words):
    bad = Slot(bodies=((1.0, damage(frames(normal(0), 1 << 14))),))
    with pytest.raises(DecodeError, match=words):
        gram([bad, *slots([normal(1)])], LAYOUT)


def test_nothing_left_after_trimming_is_an_error():
    with pytest.raises(ValueError, match="of 4 deltas none is left without 2 at either end"):
        trimmed_mean_(empty(), slots([normal(i) for i in range(4)]), LAYOUT, trim=2)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.FP32])
def test_every_code_can_be_combined(code: Code):
    coded = [list(encode(normal(i), LAYOUT, code, chunk_bytes=CHUNKS[i % 3], seed=i)) for i in range(5)]
    decoded = [torch.empty(LAYOUT.numel) for _ in coded]
    for out, body in zip(decoded, coded, strict=True):
        decode_all_(out, body, LAYOUT)
    found = median_(empty(), [Slot(bodies=((1.0, body),)) for body in coded], LAYOUT)
    assert torch.equal(found, torch.stack(decoded).median(dim=0).values)
