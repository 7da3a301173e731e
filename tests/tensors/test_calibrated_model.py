"""The calibrated rule end to end, core and tensors, against CA2FL written down plainly in float64."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
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

LAYOUT = Layout.of([TensorSpec(name="w", shape=(30, 50), dtype="float32")])
POWER = 0.5


def spec_of(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    base = {"name": "job", "task": "t", "local": local, "stop": {"versions": 1}, "codec": {"down": "fp32"}}
    return TrainingSpec.parse(base | {"strategy": "calibrated", "server_optimizer": {"lr": 1.0}} | keys)


def model_of(spec: TrainingSpec, memory: torch.Tensor | None = None) -> GlobalModel:
    optimizer = make_server_optimizer(spec.server_optimizer)
    return GlobalModel(LAYOUT, torch.zeros(LAYOUT.numel), optimizer, down_code=Code(spec.codec.down), memory=memory)


@dataclass(kw_only=True)
class Driver:
    """Core and tensors of one job, led as an aggregator leads them."""

    spec: TrainingSpec
    now: float = 0.0
    sent: int = 0
    bodies: dict[UpdateId, list[bytes]] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.aggregation = Aggregation(self.spec, now=0.0)
        self.model = model_of(self.spec)

    def sends(self, site: str, delta: np.ndarray, *, examples: int = 1, base: int | None = None) -> Folded:
        self.sent += 1
        update_id = UpdateId(site=site, incarnation="0" * 8, sequence=self.sent)
        self.bodies[update_id] = list(encode(torch.from_numpy(delta), LAYOUT, Code.FP32, seed=0))
        norm = self.model.inspect_(self.bodies[update_id]).norm
        version = self.aggregation.version if base is None else base
        arrival = Arrival(update_id=update_id, base_version=version, effort=Effort(num_examples=examples), norm=norm)
        fact = self.aggregation.receive(arrival, now=self.now)
        assert isinstance(fact, Folded)
        self.facts.append(fact)
        self.model.fold_(fact, self.bodies.__getitem__)
        return fact

    def commits(self) -> tuple[Committed, np.ndarray]:
        """Commit, and return the fact and how far the params moved."""
        before = self.model.params.clone()
        fact = self.aggregation.commit(now=self.now, reason="told to")
        self.facts.append(fact)
        deque(self.model.commit_(fact, self.bodies.__getitem__), maxlen=0)
        return fact, (self.model.params - before).double().numpy()


class Reference:
    """CA2FL with sample weights: dicts of float64 arrays, no sums kept."""

    def __init__(self, sites: dict[str, int]) -> None:
        self.weights = {site: examples**POWER for site, examples in sites.items()}
        self.memory: dict[str, np.ndarray] = {}
        self.slots: dict[str, list[np.ndarray]] = {}

    def sends(self, site: str, delta: np.ndarray) -> None:
        self.slots.setdefault(site, []).append(delta.astype(np.float64))

    def forgets(self, site: str) -> None:
        self.memory.pop(site, None)

    def commits(self) -> np.ndarray:
        slots = {site: np.mean(deltas, axis=0) for site, deltas in self.slots.items()}
        w, known = self.weights, self.memory.keys() | slots.keys()
        remembered = sum(w[i] for i in self.memory)
        mean = sum(w[i] * h for i, h in self.memory.items()) / remembered if remembered else np.zeros(LAYOUT.numel)
        p = {i: w[i] / sum(w[j] for j in known) for i in known}
        if remembered:
            fresh = sum(p[i] * (slot - self.memory.get(i, mean)) for i, slot in slots.items())
            v = mean + len(known) / len(slots) * fresh
        else:
            v = sum(w[i] * slot for i, slot in slots.items()) / sum(w[i] for i in slots)
        self.memory |= slots
        self.slots = {}
        return v


def random_delta(random_: np.random.Generator) -> np.ndarray:
    return random_.standard_normal(LAYOUT.numel).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_random_lives_of_sites_are_those_of_the_reference(seed: int) -> None:
    """Sites of different sizes and speeds join, leave, some for good; some send twice before a commit."""
    chance, numbers = random.Random(seed), np.random.default_rng(seed)
    sites = {f"s{i}": chance.choice([1, 4, 9, 30]) for i in range(6)}
    driver, reference = Driver(spec=spec_of(clip_to_own_median=None)), Reference(sites)
    active = set(list(sites)[:3])
    driver.aggregation.set_active(active, now=0.0)
    for number in range(70):
        driver.now += 1.0
        if number < 25 and chance.random() < 0.3:
            active.symmetric_difference_update({chance.choice(list(sites))})
        elif number == 30:
            active = {"s0", "s1"}
        driver.aggregation.set_active(active, now=driver.now)
        for site in chance.choices(sorted(active) or list(sites), k=chance.randint(1, 4)):
            delta = random_delta(numbers)
            base = max(0, driver.aggregation.version - chance.randint(0, 3))
            driver.sends(site, delta, examples=sites[site], base=base)
            reference.sends(site, delta)
        for site in forgotten(driver):
            reference.forgets(site)

        _, moved = driver.commits()

        expected = reference.commits()
        assert np.abs(moved - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
    assert reference.memory.keys() == {"s0", "s1"}
    total = sum(reference.weights[i] * h for i, h in reference.memory.items())
    assert np.abs(driver.model.state()["memory"].double().numpy() - total).max() < 1e-4


def forgotten(driver: Driver) -> set[str]:
    """Sites that were silent for 4 N versions and for two of their own periods."""
    memory, stats = driver.aggregation.memory, driver.aggregation.all_stats
    most = 4 * len(memory.sites.keys() | memory.buffer.keys())
    return {
        site
        for site, slot in memory.sites.items()
        if site not in memory.buffer
        and driver.aggregation.version - slot.version >= most
        and not driver.now - stats[site].last_at < 2 * (stats[site].period_s or 0.0)
    }


def test_a_buffer_of_all_sites_is_fedavg() -> None:
    numbers = np.random.default_rng(0)
    sites = {"a": 4, "b": 9, "c": 100}
    driver = Driver(spec=spec_of(clip_to_own_median=None))
    driver.aggregation.set_active(sites, now=0.0)
    for _ in range(5):
        deltas = {site: random_delta(numbers) for site in sites}
        for site, delta in deltas.items():
            driver.sends(site, delta, examples=sites[site])

        _, moved = driver.commits()

        weights = {site: examples**POWER for site, examples in sites.items()}
        fedavg = sum(weights[i] * deltas[i].astype(np.float64) for i in sites) / sum(weights.values())
        assert np.abs(moved - fedavg).max() < 1e-5


@pytest.mark.parametrize("strategy", ["calibrated"])
def test_the_facts_alone_give_the_same_bits(strategy: str) -> None:
    chance, numbers = random.Random(1), np.random.default_rng(1)
    driver = Driver(spec=spec_of(strategy=strategy, server_optimizer={"kind": "plain"}))
    sites = ["a", "b", "c", "d", "e", "f"]
    for number in range(60):
        driver.now += 1.0
        driver.aggregation.set_active(chance.sample(sites, chance.randint(1, 6)), now=driver.now)
        for site in chance.choices(sites if number < 20 else sites[:2], k=chance.randint(1, 3)):
            driver.sends(site, chance.choice([1.0, 50.0]) * random_delta(numbers), examples=chance.randint(1, 50))
        driver.commits()
    assert any(isinstance(fact, Committed) and fact.corrections for fact in driver.facts)

    again, numbers_again = model_of(driver.spec), Aggregation(driver.spec, now=99.0)
    for fact in driver.facts:
        numbers_again.apply(fact)
        if isinstance(fact, Folded):
            again.inspect_(driver.bodies[fact.update_id])
            again.fold_(fact, driver.bodies.__getitem__)
        elif isinstance(fact, Committed):
            deque(again.commit_(fact, driver.bodies.__getitem__), maxlen=0)

    assert bits(again) == bits(driver.model)
    assert numbers_again.memory.sites == driver.aggregation.memory.sites


def bits(model: GlobalModel) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state().items()}
