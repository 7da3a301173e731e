"""Which tensors of a model travel, are frozen or stay at the site, by what they are and by the lists of a job."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbus.core.protocol.layout import Kind
from fedbus.errors import LayoutError
from fedbus.tensors.sharing import Inventory, Parts, Sharing, freeze_, inventory_of, layout_of, parts_of


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 50), nn.BatchNorm1d(50), nn.Linear(50, 2).to(torch.bfloat16))


def parts(net: nn.Module, **lists: list[str]) -> Parts:
    return parts_of(inventory_of(net), Sharing(**lists))


def travelling(net: nn.Module, **lists: list[str]) -> dict[str, Kind]:
    return {spec.name: spec.kind for spec in parts(net, **lists).layout.tensors}


def holding(**tensors: Tensor) -> nn.Module:
    """A module with these buffers, and params where they are floating."""
    module = nn.Module()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)
    return module


class Tied(nn.Module):
    """A language model's head: the output matrix is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(30, 4)
        self.head = nn.Linear(4, 30, bias=False)
        self.head.weight = self.emb.weight


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


def test_weights_that_are_equal_but_not_one_travel_each() -> None:
    untied = Tied()
    untied.head.weight = nn.Parameter(untied.emb.weight.detach().clone())

    assert layout_of(untied).numel == 2 * 30 * 4


def test_the_windows_of_a_recurrent_net_s_one_memory_are_tensors_of_their_own() -> None:
    assert layout_of(nn.LSTM(3, 4)).numel == sum(p.numel() for p in nn.LSTM(3, 4).parameters())


@pytest.mark.parametrize(
    ("lists", "travel"),
    [
        ({"keep": ["batch_norm"]}, ["0.bias", "2.bias", "2.weight", "0.weight"]),
        ({"keep": ["buffers"]}, ["0.bias", "1.bias", "1.weight", "2.bias", "2.weight", "0.weight"]),
        ({"keep": ["0.*", "2.bias"]}, ["1.running_mean", "1.running_var", "1.bias", "1.weight", "2.weight"]),
        ({"travel": ["2.*"]}, ["2.bias", "2.weight"]),
        ({"travel": ["batch_norm"]}, ["1.running_mean", "1.running_var", "1.bias", "1.weight"]),
        ({"travel": ["2.*"], "keep": ["0.*"]}, ["2.bias", "2.weight"]),
    ],
)
def test_what_stays_at_a_site_is_all_that_does_not_travel(lists: dict[str, list[str]], travel: list[str]) -> None:
    net = model()

    found = parts(net, **lists)

    assert [t.name for t in found.layout.tensors] == travel
    assert found.own == net.state_dict().keys() - set(travel)
    assert not found.frozen


def test_what_is_frozen_comes_with_the_first_params_as_a_value() -> None:
    found = travelling(model(), frozen=["0.*", "1.running_mean"])

    assert found.keys() == travelling(model()).keys()
    frozen = {name for name, kind in found.items() if kind is Kind.FROZEN}
    assert frozen == parts(model(), frozen=["0.*", "1.running_mean"]).frozen
    assert frozen == {"0.weight", "0.bias", "1.running_mean"}


def test_what_is_frozen_comes_also_where_it_is_not_among_what_travels() -> None:
    found = travelling(model(), travel=["2.weight"], frozen=["0.weight"])

    assert found == {"0.weight": Kind.FROZEN, "2.weight": Kind.LEARNT}


def test_freezing_takes_tensors_out_of_training_under_any_of_their_names() -> None:
    net = Tied()
    found = parts(nn.ModuleList([net, nn.Linear(2, 2)]), frozen=["0.head.*"])
    assert found.frozen == {"0.emb.weight", "0.head.weight"}

    freeze_(net, frozenset({"head.weight"}))

    assert not net.emb.weight.requires_grad


def test_a_backbone_that_nobody_trains_is_made_anew_with_the_model_unless_the_job_keeps_it() -> None:
    net = model()
    net[0].requires_grad_(False)  # type: ignore[operator]

    assert "0.weight" not in parts(net, travel=["2.*"]).own
    assert "1.weight" in parts(net, travel=["2.*"]).own
    assert "0.weight" in parts(net, travel=["2.*"], keep=["0.*"]).own
    assert "0.weight" in parts(net, keep=["0.*"]).own


@pytest.mark.parametrize(
    ("lists", "tensor"),
    [
        ({"travel": ["0.*"], "keep": ["*.bias"]}, "'0.bias' is named by travel and by keep"),
        ({"keep": ["batch_norm"], "frozen": ["1.weight"]}, "'1.weight' is named by keep and by frozen"),
        ({"travel": ["*"], "frozen": ["0.weight"]}, "'0.weight' is named by travel and by frozen"),
    ],
)
def test_a_tensor_that_two_lists_name_is_an_error(lists: dict[str, list[str]], tensor: str) -> None:
    with pytest.raises(LayoutError, match=tensor):
        parts(model(), **lists)


def test_a_tied_tensor_is_named_twice_also_under_two_names() -> None:
    with pytest.raises(LayoutError, match="is named by keep and by frozen"):
        parts(Tied(), keep=["emb.*"], frozen=["head.*"])


@pytest.mark.parametrize("key", ["travel", "keep", "frozen"])
@pytest.mark.parametrize("pattern", ["batch_norm", "conv1.*", "Buffers"])
def test_a_pattern_without_a_tensor_is_an_error_that_says_what_there_is(key: str, pattern: str) -> None:
    with pytest.raises(LayoutError) as found:
        parts(nn.Linear(3, 2), **{key: [pattern]})
    assert str(found.value) == (
        f"{key}: {pattern!r} matches no tensor of the model; correct the job; it has weight, bias"
    )


def test_the_names_nearest_to_a_pattern_are_said() -> None:
    net = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("encoder", "decoder", "head")})
    with pytest.raises(LayoutError, match=r"nearest are head\.weight"):
        parts(net, frozen=["haed.weight"])


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        ({"keep": ["*"]}, "no floating tensor that travels"),
        ({"frozen": ["*"]}, "every tensor that travels is frozen"),
        ({"keep": ["weight"], "frozen": ["bias"]}, "every tensor that travels is frozen"),
    ],
)
def test_a_job_that_leaves_nothing_to_train_together_is_an_error(lists: dict[str, list[str]], problem: str) -> None:
    with pytest.raises(LayoutError, match=f"{problem}.*: nothing would be trained together"):
        parts(nn.Linear(3, 2), **lists)


def test_a_model_that_is_no_module_is_divided_alike() -> None:
    inventory = Inventory(
        tensors={"coef": torch.zeros(3), "scale": torch.ones(3), "steps": torch.zeros(1, dtype=torch.int64)},
        kinds={"coef": Kind.LEARNT, "scale": Kind.BUFFER, "steps": Kind.BUFFER},
    )

    assert [t.name for t in parts_of(inventory, Sharing()).layout.tensors] == ["scale", "coef"]
    assert parts_of(inventory, Sharing(keep=["buffers"])).own == {"scale", "steps"}


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

    assert [t.name for t in layout_of(net, Sharing(keep=["1.*"])).tensors] == ["0.bias", "0.weight"]
