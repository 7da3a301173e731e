from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbus.core.protocol.layout import Kind
from fedbus.errors import LayoutError
from fedbus.tensors.params import flatten, layout_of, load_params_, staying, unflatten


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


def test_what_is_learnt_is_told_from_what_is_not_and_integers_stay() -> None:
    net = model()
    net[0].bias.requires_grad_(False)

    layout = layout_of(net)

    assert [(t.name, t.kind) for t in layout.tensors] == [
        ("1.running_mean", Kind.BUFFER),
        ("1.running_var", Kind.BUFFER),
        ("0.bias", Kind.FROZEN),
        *((name, Kind.LEARNT) for name in ("1.bias", "1.weight", "2.bias", "2.weight", "0.weight")),
    ]
    assert {t.name: t.dtype for t in layout.tensors}["2.weight"] == "bfloat16"
    assert layout.value_numel == 3 * 50
    assert layout.learnt_numel == layout.numel - 150


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

    load_params_(target, unflatten(flatten(source.state_dict(), layout), layout), layout)

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
    load_params_(target, params, layout)

    assert layout.numel == 30 * 4
    assert [t.names for t in layout.tensors] == [("emb.weight", "head.weight")]
    assert set(params) == {"emb.weight", "head.weight"}
    assert torch.equal(target.head.weight, source.emb.weight)
    assert target.head.weight is target.emb.weight


def test_weights_that_are_equal_but_not_one_travel_each() -> None:
    untied = Tied()
    untied.head.weight = nn.Parameter(untied.emb.weight.detach().clone())

    assert layout_of(untied).numel == 2 * 30 * 4


def test_the_windows_of_a_recurrent_net_s_one_memory_are_tensors_of_their_own() -> None:
    assert layout_of(nn.LSTM(3, 4)).numel == sum(p.numel() for p in nn.LSTM(3, 4).parameters())


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

    load_params_(net, unflatten(torch.ones(layout.numel), layout), layout)

    assert [t.name for t in layout.tensors] == ["linear.bias", "linear.weight"]
    assert net.extra is extra
    assert net.linear.weight.eq(1).all()


@pytest.mark.parametrize(
    ("keep", "travel"),
    [
        (("batch_norm",), ["0.bias", "2.bias", "2.weight", "0.weight"]),
        (("buffers",), ["0.bias", "1.bias", "1.weight", "2.bias", "2.weight", "0.weight"]),
        (("0.*", "2.bias"), ["1.running_mean", "1.running_var", "1.bias", "1.weight", "2.weight"]),
    ],
)
def test_what_a_job_keeps_at_the_sites_does_not_travel(keep: tuple[str, ...], travel: list[str]) -> None:
    net = model()

    layout = layout_of(net, keep=keep)

    assert [t.name for t in layout.tensors] == travel
    assert staying(net, keep=keep).keys() == net.state_dict().keys() - set(travel)


@pytest.mark.parametrize("keep", ["batch_norm", "conv1.*", "Buffers"])
def test_a_pattern_that_keeps_nothing_is_an_error_that_says_what_there_is(keep: str) -> None:
    with pytest.raises(
        LayoutError, match=rf"keep: {keep!r} matches no tensor.*it has weight, bias".replace("*'", "[*]'")
    ):
        layout_of(nn.Linear(3, 2), keep=[keep])


def test_a_model_of_which_everything_is_kept_is_an_error() -> None:
    with pytest.raises(LayoutError, match="nothing would be trained together"):
        layout_of(nn.Linear(3, 2), keep=["*"])


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
        load_params_(net, unflatten(torch.ones(9), layout), layout)
    assert out.eq(5).all()
    assert all(not tensor.any() for tensor in net.state_dict().values())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (holding(steps=torch.zeros(3, dtype=torch.int64)), "no floating tensor"),
        (nn.Module(), "no floating tensor"),
        (nn.LazyLinear(2), "'weight' has no shape yet .*run one batch"),
        (nn.Linear(2, 2, device="meta"), "'weight' is on the meta device"),
        (nn.Linear(2, 2, bias=False, dtype=torch.complex64), "'weight' is complex64.*`keep`"),
        (holding(f8=torch.zeros(3).to(torch.float8_e5m2)), "'f8' is float8_e5m2.*`keep`"),
    ],
)
def test_params_that_cannot_travel_are_refused_by_name(net: nn.Module, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        layout_of(net)


def test_what_cannot_travel_can_be_kept() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.complex64))

    assert [t.name for t in layout_of(net, keep=["1.*"]).tensors] == ["0.bias", "0.weight"]
