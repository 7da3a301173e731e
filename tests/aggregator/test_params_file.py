"""Params as safetensors: every dtype of a job, without a second copy of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbus.core.layout import Layout, TensorSpec
from fedbus.errors import LayoutError
from services.aggregator.params_file import read_params, write_params

DTYPES = ["float32", "float16", "bfloat16", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_params_come_back_in_the_dtype_of_the_job(tmp_path: Path, dtype: str) -> None:
    layout = Layout.of(
        [
            TensorSpec(name="weight", shape=(700, 500), dtype=dtype),
            TensorSpec(name="bias", shape=(3,), dtype="float32"),
            TensorSpec(name="none", shape=(0, 3), dtype=dtype),
        ]
    )
    flat = torch.randn(layout.numel, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "params.safetensors"

    write_params(path, flat, layout, {"job": "heart"})

    found = load_file(path)
    assert torch.equal(found["weight"], flat[3:].view(700, 500).to(getattr(torch, dtype)))
    assert torch.equal(found["bias"], flat[:3])
    assert found["none"].shape == (0, 3)
    again_layout, again = read_params(path)
    assert again_layout == layout
    assert torch.equal(again, torch.cat([flat[:3], found["weight"].float().reshape(-1)]))


def test_counters_and_masks_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "params.safetensors"
    save_file({"w": torch.ones(2), "steps": torch.tensor(3), "mask": torch.tensor([True])}, path)
    layout, flat = read_params(path)
    assert [spec.name for spec in layout.tensors] == ["w"]
    assert flat.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"steps": torch.tensor(3)}, "holds no floating tensor"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "'w' is C64: expected one of"),
        ({"w": torch.ones(2).to(torch.float8_e5m2)}, "'w' is F8_E5M2: expected one of"),
    ],
)
def test_params_that_cannot_be_trained_together_are_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    path = tmp_path / "params.safetensors"
    save_file(tensors, path)
    with pytest.raises(LayoutError, match=words):
        read_params(path)
