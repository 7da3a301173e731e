"""State that is not learnt, end to end: it is always a mean of values that sites hold, and costs only what changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import VALUE_FRAME, Kind, Layout, TensorSpec
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Arrival, Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DecodeError
from fedbus.tensors.codec import changed_values, encode
from fedbus.tensors.feedback import encode_update_
from fedbus.tensors.global_model import GlobalModel
from fedbus.tensors.replica import Replica
from fedbus.tensors.server_optimizer import make_server_optimizer
from fedbus.tensors.values import mean_values_, trimmed_values_

BIG = 2 * VALUE_FRAME + 500
LAYOUT = Layout.of(
    [
        TensorSpec(name="bn.running_mean", shape=(30,), dtype="float32", kind=Kind.BUFFER),
        TensorSpec(name="bn.running_var", shape=(30,), dtype="float32", kind=Kind.BUFFER),
        TensorSpec(name="backbone", shape=(BIG,), dtype="float32", kind=Kind.FROZEN),
        TensorSpec(name="bn.weight", shape=(30,), dtype="float32"),
        TensorSpec(name="head", shape=(40, 50), dtype="float32"),
    ]
)
VARIANCE = slice(*LAYOUT.slices()["bn.running_var"])
LEARNT = slice(LAYOUT.value_numel, LAYOUT.numel)


def spec_of(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "job", "task": "t", "local": local, "stop": {"versions": 99}} | keys)


class Federation:
    """Core and tensors of one job, and a replica as every site holds it."""

    def __init__(self, spec: TrainingSpec) -> None:
        self.spec = spec
        self.core = Aggregation(spec, now=0.0)
        self.core.set_active("abcde", now=0.0)
        start = torch.zeros(LAYOUT.numel)
        start[VARIANCE] = 1.0
        optimizer = make_server_optimizer(spec.server_optimizer)
        self.model = GlobalModel(LAYOUT, start, optimizer, down_code=Code(spec.codec.down))
        self.replica = Replica(LAYOUT)
        self.replica.load_snapshot_(self.model.snapshot())
        self.bodies: dict[UpdateId, list[bytes]] = {}
        self.sent_bytes: list[int] = []

    def send(self, site: str, *, base: Tensor | None = None, learnt: float = 1e-3, **values: float) -> Folded:
        """A site trained: what is learnt moved by `learnt`, these tensors hold these values now."""
        base = self.replica.flat.clone() if base is None else base
        update = torch.full((LAYOUT.numel,), learnt)
        update[: LAYOUT.value_numel] = base[: LAYOUT.value_numel]
        for name, value in values.items():
            update[slice(*LAYOUT.slices()[name.replace("__", ".")])] = value
        update_id = UpdateId(site=site, incarnation="0" * 8, sequence=len(self.bodies))
        changed = changed_values(update, base, LAYOUT)
        code = Code(self.spec.codec.up.kind)
        self.bodies[update_id], _ = encode_update_(update, LAYOUT, code, take=list, seed=1, changed=changed)
        found = self.model.inspect_(self.bodies[update_id])
        arrival = Arrival(
            update_id=update_id,
            base_version=self.core.version,
            effort=Effort(num_examples=10),
            norm=found.norm,
            values_norm=found.values_norm,
        )
        fact = self.core.receive(arrival, now=float(len(self.bodies)))
        assert isinstance(fact, Folded)
        self.model.fold_(fact, self.bodies.__getitem__)
        return fact

    def commit(self) -> Tensor:
        """Make a version; what every site then holds."""
        fact = self.core.commit(now=float(len(self.bodies)), reason="now")
        frames = list(self.model.commit_(fact, self.bodies.__getitem__))
        self.sent_bytes.append(sum(map(len, frames)))
        self.replica.apply_delta_(frames)
        assert self.replica.digest == self.model.digest
        return self.replica.flat


RULES = [
    *({"strategy": kind} for kind in ("auto", "calibrated", "buffered", "fedasync", "sync")),
    *({"server_optimizer": {"kind": kind}} for kind in ("momentum", "adam", "yogi", "fadas")),
    *({"codec": {"up": code, "down": code}} for code in ("fp32", "bf16", "int4")),
    {"codec": {"up": {"kind": "topk", "ratio": 0.1}}},
    {"strategy": "buffered", "robust": {"kind": "median", "f": 1}, "min_sites": 5},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_variance_that_two_sites_bring_to_nearly_zero_does_not_become_negative(rule: dict[str, Any]) -> None:
    """One folded after the other from the same base: the sum of both differences is nearly -2."""
    house = Federation(spec_of(**rule))
    base = house.replica.flat.clone()
    for site in "abcde":
        house.send(site, base=base, bn__running_var=0.01, bn__running_mean=5.0)
        if house.core.commit_due(now=1e6):
            house.commit()

    held = house.commit() if house.core.buffer else house.replica.flat

    assert torch.allclose(held[VARIANCE], torch.tensor(0.01))
    assert torch.allclose(held[:30], torch.tensor(5.0))
    assert torch.equal(house.model.hidden[: LAYOUT.value_numel], house.model.params[: LAYOUT.value_numel])


def test_a_version_takes_the_newest_values_of_every_site_also_of_those_that_sent_nothing_for_it() -> None:
    house = Federation(spec_of(strategy={"kind": "buffered", "buffer": 1}))
    for site, variance in (("a", 1.5), ("b", 2.0), ("c", 5.5)):
        house.send(site, bn__running_var=variance)
        house.commit()

    assert torch.allclose(house.replica.flat[VARIANCE], torch.tensor(3.0))

    house.send("c", bn__running_var=2.5)
    assert torch.allclose(house.commit()[VARIANCE], torch.tensor(2.0))


def test_values_are_no_part_of_norm_step_and_clip() -> None:
    house = Federation(spec_of())

    quiet = house.send("a", bn__running_var=1.0)
    loud = house.send("b", bn__running_var=1e12)

    assert (quiet.norm, quiet.clip) == (loud.norm, loud.clip) == (pytest.approx(1e-3 * LAYOUT.learnt_numel**0.5), 1.0)
    assert quiet.values_norm is None
    assert loud.values_norm is not None
    assert loud.values_norm > 1e12


def test_what_training_did_not_change_is_not_sent_up_and_not_down() -> None:
    house = Federation(spec_of(codec={"up": "fp32", "down": "fp32"}))

    house.send("a", bn__running_mean=1.0)
    house.send("b")
    house.commit()
    house.send("a", backbone=2.0)
    held = house.commit()

    with_statistics, nothing, with_backbone = (sum(map(len, body)) for body in house.bodies.values())
    assert nothing < with_statistics < 4 * LAYOUT.learnt_numel
    assert house.sent_bytes[0] < 4 * LAYOUT.learnt_numel
    assert with_backbone > nothing + 3 * 50  # three frames more
    assert held[slice(*LAYOUT.slices()["backbone"])].eq(2).all()


def test_the_residual_of_error_feedback_holds_no_values() -> None:
    residual = torch.rand(LAYOUT.numel)

    encode_update_(residual, LAYOUT, Code.TOPK, take=list, seed=1)

    assert not residual[: LAYOUT.value_numel].any()
    assert residual[LEARNT].any()


@pytest.mark.parametrize(("value", "problem"), [(-0.1, "bn.running_var has negative"), (torch.nan, "NaN or infinite")])
def test_values_that_can_be_none_are_named(value: float, problem: str) -> None:
    house = Federation(spec_of())
    update = torch.ones(LAYOUT.numel)
    update[VARIANCE.stop - 1] = value

    found = house.model.inspect_(encode(update, LAYOUT, Code.FP32, seed=0))

    assert problem in found.problem


def test_frames_of_values_are_cut_in_one_way_only() -> None:
    """Otherwise a site could bring a frame whose share nobody else's counts against."""
    other = Layout.of([TensorSpec(name="w", shape=(LAYOUT.numel,), dtype="float32")])
    frames = list(encode(torch.ones(LAYOUT.numel), other, Code.FP32, seed=0, chunk_bytes=1 << 14))

    with pytest.raises(DecodeError, match="no frame of values goes from element 0 to"):
        Federation(spec_of()).model.inspect_(frames)


def test_a_whole_model_and_what_is_learnt_may_not_have_gaps() -> None:
    frames = list(encode(torch.ones(LAYOUT.numel), LAYOUT, Code.FP32, seed=0))

    with pytest.raises(DecodeError, match="must start at element"):
        Replica(LAYOUT).load_snapshot_(frames[1:])
    with pytest.raises(DecodeError, match="some are missing"):
        Federation(spec_of()).model.inspect_(frames[:-1])


def test_a_model_of_which_nothing_is_learnt_travels_too() -> None:
    layout = Layout.of([TensorSpec(name="centres", shape=(9,), dtype="float32", kind=Kind.BUFFER)])
    model = GlobalModel(layout, torch.zeros(9), make_server_optimizer(spec_of().server_optimizer), down_code=Code.INT8)
    body = list(encode(torch.full((9,), 2.0), layout, Code.INT8, seed=0))
    core = Aggregation(spec_of(), now=0.0)
    found = model.inspect_(body)
    update_id = UpdateId(site="a", incarnation="0" * 8, sequence=0)
    fact = core.receive(
        Arrival(
            update_id=update_id,
            base_version=0,
            effort=Effort(num_examples=1),
            norm=found.norm,
            values_norm=found.values_norm,
        ),
        now=0.0,
    )
    assert isinstance(fact, Folded)
    model.fold_(fact, lambda _: body)

    frames = list(model.commit_(core.commit(now=1.0, reason="now"), lambda _: body))

    assert len(frames) == 1
    assert model.hidden.tolist() == [2.0] * 9


values = st.floats(-1e6, 1e6, width=32)


@given(
    held=values,
    bodies=st.lists(st.tuples(st.floats(1e-3, 1e3), st.lists(values, min_size=9, max_size=9)), min_size=1, max_size=6),
    trim=st.integers(0, 3),
)
def test_a_mean_lies_between_the_values_it_is_made_of(
    held: float, bodies: list[tuple[float, list[float]]], trim: int
) -> None:
    layout = Layout.of([TensorSpec(name="v", shape=(9,), dtype="float32", kind=Kind.BUFFER)])
    frames = [(factor, list(encode(torch.tensor(v), layout, Code.FP32, seed=0))) for factor, v in bodies]
    rows = torch.tensor([v for _, v in bodies])
    mean, trimmed = torch.full((9,), held), torch.full((9,), held)

    mean_values_(mean, frames, layout)
    trimmed_values_(trimmed, [body for _, body in frames], layout, trim=trim)

    slack = rows.abs().amax() * 1e-6
    for found in (mean, trimmed):
        assert (found >= rows.amin(0) - slack).all()
        assert (found <= rows.amax(0) + slack).all()


def test_a_trimmed_mean_leaves_out_the_lowest_and_the_highest() -> None:
    layout = Layout.of([TensorSpec(name="v", shape=(1,), dtype="float32", kind=Kind.BUFFER)])
    bodies = [list(encode(torch.tensor([v]), layout, Code.FP32, seed=0)) for v in (1.0, 2.0, 4.0, 1e9, -1e9)]
    out = torch.zeros(1)

    trimmed_values_(out, bodies, layout, trim=1)

    assert out.item() == pytest.approx(7 / 3)


def test_batch_normalisation_of_two_real_trainings_scores_like_either_of_them() -> None:
    """As `bn_why` of the users' cases: a constant feature, 20 steps, from the same base."""
    variances = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        norm = nn.BatchNorm1d(30)
        for _ in range(20):
            norm(torch.full((32, 30), float(seed)))
        assert norm.running_var is not None
        variances.append(norm.running_var)
    house = Federation(spec_of(strategy={"kind": "buffered", "buffer": 1}))
    base = house.replica.flat.clone()

    for site, variance in zip("ab", variances, strict=True):
        house.send(site, base=base, bn__running_var=float(variance[0]))
        held = house.commit()

    assert (held[VARIANCE] > 0).all()
    assert torch.allclose(held[VARIANCE], torch.stack(variances).mean(0))
