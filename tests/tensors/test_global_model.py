"""Aggregator and sites together: they hold the same bits after every commit."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code, FrameHeader
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Committed, Folded
from fedbus.core.spec.training import ServerOptimizerSpec
from fedbus.errors import DecodeError, LayoutError
from fedbus.tensors.codec import encode
from fedbus.tensors.global_model import GlobalModel
from fedbus.tensors.replica import Replica
from fedbus.tensors.server_optimizer import ServerOptimizer, make_server_optimizer

LAYOUT = Layout.of(
    [
        TensorSpec(name="w", shape=(70, 80), dtype="float32"),
        TensorSpec(name="b", shape=(80,), dtype="float32"),
        TensorSpec(name="v", shape=(80, 90), dtype="float32"),
    ]
)
CHUNK = 1 << 14
UPDATE = UpdateId(site="mercy", incarnation="0123abcd", sequence=1)


def normal(seed: int) -> Tensor:
    return torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(seed))


def optimizer(kind: str = "plain") -> ServerOptimizer:
    return make_server_optimizer(ServerOptimizerSpec.model_validate({"kind": kind}))


def global_model(*, down_code: Code = Code.FP32, kind: str = "plain") -> GlobalModel:
    return GlobalModel(LAYOUT, normal(0), optimizer(kind), down_code=down_code, chunk_bytes=CHUNK)


def update(delta: Tensor, code: Code = Code.FP32, seed: int = 0) -> list[bytes]:
    return list(encode(delta, LAYOUT, code, chunk_bytes=CHUNK, seed=seed))


def fold(model: GlobalModel, delta: Tensor, weight: float = 1.0) -> None:
    model.inspect_(update(delta))
    model.fold_(folded(weight), no_bodies)


def commit(model: GlobalModel, normaliser: float) -> list[bytes]:
    """A whole commit: all its frames are taken."""
    return list(model.commit_(committed(normaliser), no_bodies))


def folded(weight: float = 1.0, **changes: Any) -> Folded:
    numbers = {"base_version": 0, "num_examples": 1, "staleness": 0, "clip": 1.0, "norm": 1.0, "at": 0.0}
    return Folded(update_id=UPDATE, weight=weight, **numbers | changes)


def committed(normaliser: float = 1.0, **changes: Any) -> Committed:
    return Committed(version=1, update_ids=(UPDATE,), normaliser=normaliser, reason="full", at=0.0, **changes)


def no_bodies(update_id: UpdateId) -> list[bytes]:
    raise AssertionError(f"nobody needs {update_id} again")


def joined(model: GlobalModel) -> Replica:
    replica = Replica(LAYOUT)
    replica.load_snapshot_(model.snapshot())
    return replica


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_sign_of_the_delta() -> None:
    # given one site that trained from the newest version
    model = global_model()
    site = joined(model)
    local = site.flat + 0.1 * normal(1)

    # when its delta is folded fresh, in a buffer of one, with a plain step of lr 1
    fold(model, local - site.flat)
    site.apply_delta_(commit(model, 1.0))

    # then everyone holds the site's local model, to rounding
    torch.testing.assert_close(model.params, local, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(site.flat, local, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "adam"])
@pytest.mark.parametrize("down_code", Code)
def test_replicas_stay_equal_to_hidden_bit_for_bit(down_code: Code, kind: str) -> None:
    model = global_model(down_code=down_code, kind=kind)
    first, late = joined(model), None
    for version in range(1, 61):
        fold(model, 0.1 * normal(version), weight=0.7)
        fold(model, 0.01 * normal(1000 + version), weight=0.2)
        frames = commit(model, 0.9)
        for replica in (first, late):
            if replica is not None:
                replica.apply_delta_(frames)
                assert same_bits(replica.flat, model.hidden)
                assert replica.digest == model.digest
        if version == 20:
            late = joined(model)
    assert late is not None


@pytest.mark.parametrize("down_code", [Code.FP16, Code.BF16, Code.INT8])
def test_what_the_down_code_rounds_away_reaches_the_sites_later(down_code: Code) -> None:
    model = global_model(down_code=down_code)
    fold(model, normal(1))
    gaps = []
    for _ in range(4):
        commit(model, 1.0)
        gaps.append((model.params - model.hidden).abs().max().item())

    assert gaps[0] > 0
    assert all(later <= earlier / 16 or later < 1e-6 for earlier, later in pairwise(gaps))


def test_hidden_follows_params_without_drift() -> None:
    model = global_model(down_code=Code.INT8)
    for version in range(100):
        fold(model, 0.1 * normal(version))
        commit(model, 1.0)

    step_of_one_version = 2 * 0.1 * 5 / 127
    assert (model.params - model.hidden).abs().max() < 2 * step_of_one_version


def test_inspection_gives_the_norm_of_the_delta_and_changes_nothing() -> None:
    model = global_model()
    before = model.params.clone(), model.hidden.clone()

    inspection = model.inspect_(update(normal(1)))

    assert inspection.finite
    assert inspection.norm == pytest.approx(normal(1).double().norm().item(), rel=1e-12)
    assert same_bits(model.params, before[0])
    assert same_bits(model.hidden, before[1])


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_inspection_finds_values_that_are_not_finite(value: float, code: Code) -> None:
    delta = normal(1)
    delta[-7] = value

    inspection = global_model().inspect_(update(delta, code))

    assert not inspection.finite
    assert not math.isfinite(inspection.norm)


def test_large_finite_values_are_finite() -> None:
    assert global_model().inspect_(update(torch.full((LAYOUT.numel,), 3e38))).finite


def test_an_update_that_is_not_whole_is_refused_and_not_folded() -> None:
    model = global_model()
    with pytest.raises(DecodeError, match="some are missing"):
        model.inspect_(update(normal(1))[:-1])

    model.inspect_(update(torch.zeros(LAYOUT.numel)))
    model.fold_(folded(), no_bodies)
    commit(model, 1.0)
    assert same_bits(model.params, normal(0))


@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi"])
def test_the_same_folds_give_the_same_bits(kind: str) -> None:
    def run() -> tuple[Tensor, Tensor, list[bytes]]:
        model = global_model(down_code=Code.INT8, kind=kind)
        frames: list[bytes] = []
        for version in range(5):
            for site in range(3):
                model.inspect_(update(normal(10 * version + site), Code.INT8, seed=site))
                model.fold_(folded(1 / (1 + site) ** 0.5), no_bodies)
            frames += commit(model, 2.28)
        return model.params, model.hidden, frames

    (params, hidden, frames), (params_again, hidden_again, frames_again) = run(), run()

    assert same_bits(params, params_again)
    assert same_bits(hidden, hidden_again)
    assert frames == frames_again


@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi"])
def test_a_restored_model_goes_on_bit_for_bit(kind: str) -> None:
    model = global_model(down_code=Code.INT8, kind=kind)
    fold(model, normal(1))
    commit(model, 1.0)

    saved = {name: tensor.clone() for name, tensor in model.state().items()}
    restored = GlobalModel.restore(LAYOUT, saved, optimizer(kind), down_code=Code.INT8, chunk_bytes=CHUNK)
    assert restored.digest == model.digest

    for each in (model, restored):
        fold(each, normal(2))
    assert commit(model, 1.0) == commit(restored, 1.0)
    assert same_bits(model.params, restored.params)


def test_restoring_another_jobs_checkpoint_is_a_layout_error() -> None:
    with pytest.raises(LayoutError, match=f"no 'hidden' of {LAYOUT.numel} elements"):
        GlobalModel.restore(LAYOUT, {"params": normal(0)}, optimizer(), down_code=Code.FP32)


def test_params_and_a_restored_state_are_taken_over_without_a_copy() -> None:
    params = normal(0)
    model = GlobalModel(LAYOUT, params, optimizer("adam"), down_code=Code.FP32)
    assert model.params.data_ptr() == params.data_ptr()
    assert model.hidden.data_ptr() != params.data_ptr()
    fold(model, normal(1))
    commit(model, 1.0)

    state = {name: tensor.clone() for name, tensor in model.state().items()}
    restored = GlobalModel.restore(LAYOUT, state, optimizer("adam"), down_code=Code.FP32).state()

    assert {name: t.data_ptr() for name, t in restored.items()} == {name: t.data_ptr() for name, t in state.items()}


@pytest.mark.parametrize("down_code", Code)
def test_hidden_goes_as_far_as_frames_were_taken(down_code: Code) -> None:
    model, whole = global_model(down_code=down_code), global_model(down_code=down_code)
    before = model.hidden.clone()
    for each in (model, whole):
        fold(each, normal(1))
    expected = commit(whole, 1.0)

    frames = model.commit_(committed(), no_bodies)
    first = next(frames)

    reached = FrameHeader.parse(first).stop
    assert first == expected[0]
    assert same_bits(model.hidden[:reached], whole.hidden[:reached])
    assert same_bits(model.hidden[reached:], before[reached:])
    assert list(frames) == expected[1:]
    assert same_bits(model.hidden, whole.hidden)


def test_a_model_between_two_versions_gives_nothing_away_and_takes_nothing() -> None:
    model = global_model()
    fold(model, normal(1))
    frames = model.commit_(committed(), no_bodies)
    next(frames)
    for forbidden in (
        lambda: model.digest,
        model.state,
        model.snapshot,
        lambda: model.commit_(committed(), no_bodies),
        lambda: model.inspect_(update(normal(2))),
    ):
        with pytest.raises(RuntimeError, match="lies between two versions"):
            forbidden()

    rest = list(frames)

    assert len(rest) == model.delta_frames - 1
    assert model.digest == joined(model).digest


@pytest.mark.parametrize("down_code", Code)
def test_the_number_of_frames_is_known_before_they_are_made(down_code: Code) -> None:
    model = global_model(down_code=down_code)
    fold(model, normal(1))
    assert model.delta_frames == len(commit(model, 1.0))
    assert model.snapshot_frames == len(list(model.snapshot()))


def test_a_replica_that_missed_a_delta_knows_by_its_digest_and_recovers_by_snapshot() -> None:
    model = global_model()
    replica = joined(model)
    for version in (1, 2):
        fold(model, normal(version))
        frames = commit(model, 1.0)
    replica.apply_delta_(frames)
    assert replica.digest != model.digest

    replica.load_snapshot_(model.snapshot())

    assert replica.digest == model.digest


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("down_code", Code)
def test_a_replica_on_a_gpu_holds_the_same_bits(down_code: Code) -> None:
    model = global_model(down_code=down_code)
    replica = Replica(LAYOUT, device="cuda")
    replica.load_snapshot_(model.snapshot())
    for version in range(20):
        delta = 0.1 * normal(version).cuda()
        model.inspect_(update(delta, Code.INT8, seed=version))
        model.fold_(folded(), no_bodies)
        replica.apply_delta_(model.commit_(committed(), no_bodies))
        assert replica.digest == model.digest
        assert same_bits(replica.flat.cpu(), model.hidden)
