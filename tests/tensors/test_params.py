from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbus.errors import LayoutError
from fedbus.tensors.params import flatten, load_params_, unflatten
from fedbus.tensors.sharing import layout_of


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 50), nn.BatchNorm1d(50), nn.Linear(50, 2).to(torch.bfloat16))


def holding(**tensors: Tensor) -> nn.Module:
    """A module with these buffers, and params where they are floating."""
    module = nn.Module()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)
    return module


def test_flatten_and_unflatten_are_inverse_in_shape_dtype_and_bits() -> None:
    params, layout = model().state_dict(), layout_of(model())

    flat = flatten(params, layout)
    back = unflatten(flat, layout)

    assert flat.shape == (layout.numel,)
    assert flat.dtype == torch.float32
    assert set(back) == set(params) - {"1.num_batches_tracked"}
    for name, tensor in back.items():
        assert tensor.dtype == params[name].dtype
        assert torch.equal(tensor, params[name])


def test_flatten_reads_transposed_and_scalar_tensors() -> None:
    net = holding(turned=torch.arange(6.0).view(2, 3).t(), scalar=torch.tensor(7.0))

    assert flatten(net.state_dict(), layout_of(net)).tolist() == [7, 0, 3, 1, 4, 2, 5]


def test_flatten_fills_out() -> None:
    params, layout = model().state_dict(), layout_of(model())
    out = torch.zeros(layout.numel)

    assert flatten(params, layout, out) is out
    assert torch.equal(out, flatten(params, layout))


def test_load_params_gives_the_module_these_params_and_leaves_its_counters() -> None:
    source, target = model(0), model(1)
    target.state_dict()["1.num_batches_tracked"].fill_(9)
    layout = layout_of(source)

    load_params_(target.state_dict(), unflatten(flatten(source.state_dict(), layout), layout))

    assert torch.equal(flatten(target.state_dict(), layout), flatten(source.state_dict(), layout))
    assert target.state_dict()["1.num_batches_tracked"] == 9
    assert target[0].weight.requires_grad  # type: ignore[index]


class Tied(nn.Module):
    """A language model's head: the output matrix is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(30, 4)
        self.head = nn.Linear(4, 30, bias=False)
        self.head.weight = self.emb.weight


def test_tied_weights_travel_once_and_come_back_under_all_names() -> None:
    source, target = Tied(), Tied()
    layout = layout_of(source)

    params = unflatten(flatten(source.state_dict(), layout), layout)
    load_params_(target.state_dict(), params)

    assert layout.numel == 30 * 4
    assert [t.names for t in layout.tensors] == [("emb.weight", "head.weight")]
    assert set(params) == {"emb.weight", "head.weight"}
    assert torch.equal(target.head.weight, source.emb.weight)
    assert target.head.weight is target.emb.weight


class WithExtraState(nn.Module):
    def __init__(self, extra: object) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.extra = extra

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


@pytest.mark.parametrize("extra", [{"calls": 1}, b"amax", None, torch.zeros(3)])
def test_what_a_module_keeps_beside_its_tensors_stays_at_the_site(extra: object) -> None:
    net = WithExtraState(extra)
    layout = layout_of(net)

    load_params_(net.state_dict(), unflatten(torch.ones(layout.numel), layout))

    assert [t.name for t in layout.tensors] == ["linear.bias", "linear.weight"]
    assert net.extra is extra
    assert net.linear.weight.eq(1).all()


DIFFER = [
    (holding(w=torch.zeros(2, 3)), r"tensor 'b' \[3\] float32 is missing"),
    (holding(w=torch.zeros(3, 2), b=torch.zeros(3)), r"'w': expected \[2, 3\] float32, found \[3, 2\] float32"),
    (holding(w=torch.zeros(2, 3), b=torch.zeros(3).half()), r"'b': expected \[3\] float32, found \[3\] float16"),
]


@pytest.mark.parametrize(("net", "message"), DIFFER)
def test_params_that_differ_are_named_and_nothing_changes(net: nn.Module, message: str) -> None:
    layout = layout_of(holding(w=torch.zeros(2, 3), b=torch.zeros(3)))
    out = torch.full((9,), 5.0)

    with pytest.raises(LayoutError, match=message):
        flatten(net.state_dict(), layout, out)
    with pytest.raises(LayoutError, match=message):
        load_params_(net.state_dict(), unflatten(torch.ones(9), layout))
    assert out.eq(5).all()
    assert all(not tensor.any() for tensor in net.state_dict().values())
