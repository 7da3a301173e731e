"""Robust rules end to end, core and tensors, against the papers written down plainly in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Arrival, Committed, Fact, Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.tensors.codec import encode
from fedbus.tensors.global_model import GlobalModel
from fedbus.tensors.server_optimizer import make_server_optimizer

LAYOUT = Layout.of([TensorSpec(name="w", shape=(200, 400), dtype="float32")])
SITES = tuple("abcdefg")
LIARS = ("b", "f")


class Federation:
    """Core and tensors of one job of seven sites, led as an aggregator leads them."""

    def __init__(self, **keys: Any) -> None:
        local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
        base = {"name": "job", "task": "t", "local": local, "stop": {"versions": 1}, "min_sites": 7}
        self.spec = TrainingSpec.parse(
            base
            | {"codec": {"down": "fp32"}, "strategy": {"kind": "buffered"}, "server_optimizer": {"lr": 1.0}}
            | {"clip_to_own_median": None}
            | keys
        )
        self.aggregation = Aggregation(self.spec, now=0.0)
        self.aggregation.set_active(SITES, now=0.0)
        self.model = self.fresh_model()
        self.bodies: dict[UpdateId, list[bytes]] = {}
        self.facts: list[Fact] = []

    def fresh_model(self) -> GlobalModel:
        optimizer = make_server_optimizer(self.spec.server_optimizer)
        return GlobalModel(LAYOUT, torch.zeros(LAYOUT.numel), optimizer, down_code=Code(self.spec.codec.down))

    def sends(self, site: str, delta: np.ndarray, *, examples: int = 1) -> None:
        update_id = UpdateId(site=site, incarnation="0" * 8, sequence=len(self.bodies))
        chunk = (1 << 14) * (1 + len(self.bodies) % 3)
        self.bodies[update_id] = list(encode(torch.from_numpy(delta), LAYOUT, Code.FP32, chunk_bytes=chunk, seed=0))
        norm = self.model.inspect_(self.bodies[update_id]).norm
        arrival = Arrival(
            update_id=update_id, base_version=self.aggregation.version, effort=Effort(num_examples=examples), norm=norm
        )
        fact = self.aggregation.receive(arrival, now=1.0)
        assert isinstance(fact, Folded)
        self.model.fold_(fact, self.bodies.__getitem__)
        self.facts.append(fact)

    def commits(self) -> Committed:
        compared = self.aggregation.to_compare(now=1.0, reason="the test says so")
        gram = None if compared is None else self.model.gram(compared, self.bodies.__getitem__)
        fact = self.aggregation.commit(now=1.0, reason="the test says so", gram=gram)
        self.facts.append(fact)
        for _ in self.model.commit_(fact, self.bodies.__getitem__):
            pass
        return fact

    def replayed(self) -> GlobalModel:
        """Another model after the same facts, with no decision made again."""
        model = self.fresh_model()
        for fact in self.facts:
            if isinstance(fact, Folded):
                model.inspect_(self.bodies[fact.update_id])
                model.fold_(fact, self.bodies.__getitem__)
            elif isinstance(fact, Committed):
                for _ in model.commit_(fact, self.bodies.__getitem__):
                    pass
        return model


def deltas(seed: int) -> dict[str, np.ndarray]:
    """Five sites that learn about the same, two that send -3 times that."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(LAYOUT.numel)
    found = {site: common + 0.3 * random.standard_normal(LAYOUT.numel) for site in SITES}
    return {site: (-3 * d if site in LIARS else d).astype(np.float32) for site, d in found.items()}


def multi_krum(rows: dict[str, np.ndarray], f: int) -> list[str]:
    """The sites that Blanchard et al. keep, straight from the definition."""
    scores = {}
    for site, own in rows.items():
        near = sorted(float(((own - other) ** 2).sum()) for name, other in rows.items() if name != site)
        scores[site] = sum(near[: len(rows) - f - 2])
    return sorted(sorted(scores, key=scores.__getitem__)[: len(rows) - f])


@pytest.mark.parametrize("kind", ["multi_krum", "trimmed_mean", "median"])
def test_three_versions_are_those_of_the_paper_and_a_replay_gives_the_same_bits(kind):
    job = Federation(robust={"kind": kind, "f": 2}, num_examples_power=1.0)
    expected = np.zeros(LAYOUT.numel)
    for version in range(3):
        sent = deltas(version)
        examples = {site: 1 + index for index, site in enumerate(SITES)}
        for site, delta in sent.items():
            job.sends(site, delta, examples=examples[site])
        fact = job.commits()
        rows = {site: delta.astype(np.float64) for site, delta in sent.items()}
        if kind == "multi_krum":
            kept = multi_krum(rows, f=2)
            assert fact.combination is not None
            assert fact.combination.excluded == LIARS
            expected += np.average([rows[s] for s in kept], axis=0, weights=[examples[s] for s in kept])
        else:
            ranked = np.sort(list(rows.values()), axis=0)
            expected += ranked[2:5].mean(axis=0) if kind == "trimmed_mean" else ranked[3]
        np.testing.assert_allclose(job.model.params.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert job.replayed().digest == job.model.digest


def test_two_updates_of_one_site_are_one_vote():
    # given a liar that sends as often as all others together
    job = Federation(robust={"kind": "multi_krum", "f": 2})
    sent = deltas(0)
    for site in SITES:
        job.sends(site, sent[site])
        job.sends("b", sent["b"])
    fact = job.commits()
    assert fact.combination is not None
    assert fact.combination.excluded == LIARS


@pytest.mark.parametrize("kind", ["multi_krum", "trimmed_mean", "median"])
def test_a_buffer_that_nobody_can_judge_moves_nothing(kind):
    job = Federation(robust={"kind": kind, "f": 2})
    sent = deltas(0)
    for site in ("b", "f", "a"):
        job.sends(site, sent[site])
    assert job.aggregation.commit_due(now=9.0) is None
    job.commits()
    assert not job.model.params.any()
    # and it leaves nothing in the buffer for the next version
    for site in SITES:
        job.sends(site, sent["a"])
    job.commits()
    np.testing.assert_allclose(job.model.params.numpy(), sent["a"], rtol=1e-6)
