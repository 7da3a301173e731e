from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbus.tensors.digest import digest

PINNED = [
    (torch.tensor([0.0]), "c3f5cc9bd28814a6"),
    (torch.tensor([-0.0]), "7cb67f66c4fa53be"),
    (torch.zeros(2), "51b9c21beffd5c77"),
    (torch.tensor([1.0, 2.0, -3.5]), "3f74f6ee2df68d16"),
    (torch.arange(32_768.0), "25a930b1ce0ba436"),
    (torch.arange(100_001.0), "491124c6ae03b1c4"),
]


@pytest.mark.parametrize(("flat", "expected"), PINNED)
def test_digest_is_pinned(flat: Tensor, expected: str) -> None:
    assert digest(flat) == expected


def test_digest_equals_the_formula_in_plain_integers() -> None:
    words = [1.0, -2.0, 0.5]
    keys = hashlib.shake_128(b"fedbus digest 1").digest(24)
    total = sum(
        int.from_bytes(bytes(torch.tensor([w]).view(torch.uint8).tolist()), "little", signed=True)
        * int.from_bytes(keys[8 * i : 8 * i + 8], "little", signed=True)
        for i, w in enumerate(words)
    )

    whole = (3).to_bytes(8, "little") + (total % 2**64).to_bytes(8, "little")
    assert digest(torch.tensor(words)) == hashlib.blake2b(whole, digest_size=8).hexdigest()


@settings(max_examples=60)
@given(element=st.integers(0, 69_999), bit=st.integers(0, 31))
def test_one_flipped_bit_changes_it(element: int, bit: int) -> None:
    flat = torch.arange(70_000.0)
    before = digest(flat)
    flat.view(torch.int32)[element] ^= -(2**31) if bit == 31 else 1 << bit

    assert digest(flat) != before


@settings(max_examples=60)
@given(st.lists(st.integers(0, 999), min_size=2, max_size=6, unique=True))
def test_flipped_signs_and_swaps_change_it(places: list[int]) -> None:
    flat = torch.arange(1.0, 1001.0)
    flipped, swapped = flat.clone(), flat.clone()
    flipped[places] *= -1
    swapped[places] = swapped[places].roll(1)

    assert len({digest(flat), digest(flipped), digest(swapped)}) == 3


def test_digest_needs_no_gradient_and_sees_nan_bits() -> None:
    flat = torch.tensor([float("nan")], requires_grad=True)

    assert digest(flat) == digest(flat.detach().clone())
