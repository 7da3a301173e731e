from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedbus.errors import LayoutError
from fedbus.tensors.params import flatten, layout_of, load_params_, unflatten


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 50), nn.BatchNorm1d(50), nn.Linear(50, 2).to(torch.bfloat16))


def test_integer_buffers_never_travel() -> None:
    layout = layout_of(model().state_dict())

    assert [t.name for t in layout.tensors] == [
        *("0.bias", "1.bias", "1.running_mean", "1.running_var", "1.weight", "2.bias", "2.weight"),
        "0.weight",
    ]
    assert {t.name: t.dtype for t in layout.tensors}["2.weight"] == "bfloat16"


def test_a_safetensors_file_of_the_params_has_the_layout_of_the_model(tmp_path: Path) -> None:
    params = model().state_dict()
    save_file(params, tmp_path / "params.safetensors")

    assert layout_of(load_file(tmp_path / "params.safetensors")).digest == layout_of(params).digest


def test_flatten_and_unflatten_are_inverse_in_shape_dtype_and_bits() -> None:
    params = model().state_dict()
    layout = layout_of(params)

    flat = flatten(params, layout)
    back = unflatten(flat, layout)

    assert flat.shape == (layout.numel,)
    assert flat.dtype == torch.float32
    assert set(back) == set(params) - {"1.num_batches_tracked"}
    for name, tensor in back.items():
        assert tensor.dtype == params[name].dtype
        assert torch.equal(tensor, params[name])


def test_flatten_reads_transposed_and_scalar_tensors() -> None:
    params = {"turned": torch.arange(6.0).view(2, 3).t(), "scalar": torch.tensor(7.0)}

    flat = flatten(params, layout_of(params))

    assert flat.tolist() == [7, 0, 3, 1, 4, 2, 5]


def test_flatten_fills_out() -> None:
    params = model().state_dict()
    layout = layout_of(params)
    out = torch.zeros(layout.numel)

    assert flatten(params, layout, out) is out
    assert torch.equal(out, flatten(params, layout))


def test_load_params_gives_the_module_these_params_and_leaves_its_counters() -> None:
    source, target = model(0), model(1)
    target.state_dict()["1.num_batches_tracked"].fill_(9)
    layout = layout_of(source.state_dict())

    load_params_(target, unflatten(flatten(source.state_dict(), layout), layout))

    assert torch.equal(flatten(target.state_dict(), layout), flatten(source.state_dict(), layout))
    assert target.state_dict()["1.num_batches_tracked"] == 9
    assert target[0].weight.requires_grad  # type: ignore[index]


BAD = [
    ({"w": torch.zeros(2, 3)}, r"tensor 'b' \[3\] float32 is missing"),
    (
        {"w": torch.zeros(3, 2), "b": torch.zeros(3)},
        r"tensor 'w': expected \[2, 3\] float32, found \[3, 2\] float32",
    ),
    ({"w": torch.zeros(2, 3), "b": torch.zeros(3).half()}, r"tensor 'b': expected \[3\] float32, found \[3\] float16"),
    (
        {"w": torch.zeros(2, 3), "b": torch.zeros(3), "extra": torch.zeros(1)},
        r"tensor 'extra' \[1\] float32 is not part",
    ),
]


@pytest.mark.parametrize(("params", "message"), BAD)
def test_params_that_differ_are_named(params: dict[str, Tensor], message: str) -> None:
    layout = layout_of({"w": torch.zeros(2, 3), "b": torch.zeros(3)})
    out = torch.full((9,), 5.0)

    with pytest.raises(LayoutError, match=message):
        flatten(params, layout, out)
    assert out.eq(5).all()


def test_loading_params_that_differ_changes_nothing() -> None:
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    with pytest.raises(LayoutError, match="'weight'"):
        load_params_(module, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})

    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": torch.zeros(3, dtype=torch.int64)}, "no floating tensor"),
        ({}, "no floating tensor"),
        ({"z": torch.zeros(3, dtype=torch.complex64)}, "'z' is complex64"),
        ({"f8": torch.zeros(3).to(torch.float8_e5m2)}, "'f8' is float8_e5m2"),
    ],
)
def test_params_that_cannot_travel_are_refused(params: dict[str, Tensor], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        layout_of(params)
