"""How many updates a second one aggregator decides on, folds and commits, against the number of sites.

The production core, codec and global model as in virtual time (see `simulation.rules`), fed with prepared updates as
fast as they are taken: no broker, no disk, no training. What a broker and disks leave of it: `fedbus bench soak`.
And the core alone, which only sees numbers: commits included, for a whole turn of all sites after they have sent often
enough to bound each other, in seconds of the thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from fedbus.bench.figures import MIB, Row, row
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Arrival
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation.rules import Production
from fedbus.simulation.trainer import Trained
from fedbus.tensors.codec import encode

VARIANTS = 8
"""So many different deltas are sent: enough that none is always the same, few enough to be made in no time."""
PERIOD_S = 10.0
CORE_GOAL_MS = 1.0
TURNS = 4
"""So many turns of all sites come before the one that is measured: from then on every guard has numbers."""


def rows(*, sites: Sequence[int], strategies: Sequence[str], mib: float, updates: int) -> list[Row]:
    """Return updates per second for each strategy and number of sites, on one torch thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            row(
                f"{strategy}, {number} sites, {mib:g} MiB: updates per second",
                updates / _seconds(strategy, number, numel=int(mib * MIB) // 4, updates=updates),
                "1/s",
            )
            for strategy in strategies
            for number in sites
        ]
    finally:
        torch.set_num_threads(threads)


def core_rows(*, sites: Sequence[int], strategies: Sequence[str], turns: int = TURNS) -> list[Row]:
    """Return ms per update in the core for each strategy and number of sites."""
    return [
        row(f"{strategy}, {number} sites: core", _core_ms(strategy, number, turns=turns), "ms/update", CORE_GOAL_MS)
        for strategy in strategies
        for number in sites
    ]


def _core_ms(strategy: str, sites: int, *, turns: int) -> float:
    """Milliseconds of the thread per update, decided and committed, in the turn after `turns` turns of all sites."""
    core = Aggregation(TrainingSpec.parse(_spec(strategy)), now=0.0)
    names = [f"site-{number}" for number in range(sites)]
    core.set_active(names, now=0.0)
    held = dict.fromkeys(names, 0)
    draw = random.Random(0)
    began = 0.0
    for turn in range(turns + 1):
        draw.shuffle(names)
        began = time.thread_time()
        for place, site in enumerate(names):
            now = PERIOD_S * (turn + (place + 1) / sites)
            core.receive(
                Arrival(
                    update_id=UpdateId(site=site, incarnation="00000000", sequence=turn),
                    base_version=held[site],
                    effort=Effort(num_examples=draw.randrange(50, 500), steps=1),
                    norm=draw.uniform(0.5, 2.0),
                    scale=10.0,
                ),
                now=now,
            )
            if core.commit_due(now=now):
                core.commit(now=now)
            held[site] = core.version
    return 1e3 * (time.thread_time() - began) / sites


def _seconds(strategy: str, sites: int, *, numel: int, updates: int) -> float:
    """Seconds of the aggregator for `updates` updates, once every site has sent one."""
    spec = TrainingSpec.parse(_spec(strategy))
    layout = Layout.of([TensorSpec(name="params", shape=(numel,), dtype="float32")])
    server = Production(spec, layout, torch.zeros(numel))
    names = [f"site-{number}" for number in range(sites)]
    server.set_active(names, now=0.0)
    server.begin(now=0.0)
    held = dict.fromkeys(names, 0)
    sent = dict.fromkeys(names, 0)
    bodies = _bodies(layout)
    draw = random.Random(0)
    began = time.perf_counter()
    for number in range(sites + updates):
        if number == sites:
            began = time.perf_counter()
        site = names[number] if number < sites else draw.choice(names)
        now = PERIOD_S * (number + 1) / sites
        sent[site] += 1
        server.take(_update(site, sent[site], held[site], bodies[number % VARIANTS]), base=None, now=now)
        server.commit_if_due(now=now)
        held[site] = server.version
    return time.perf_counter() - began


def _spec(strategy: str) -> dict[str, Any]:
    return {
        "name": "scale",
        "task": "synthetic",
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0},
        "strategy": strategy,
        "codec": {"up": "int8", "down": "int8"},
        "stop": {"wall_time_s": 1e8},
    }


def _bodies(layout: Layout) -> list[tuple[bytes, ...]]:
    draw = torch.Generator().manual_seed(0)
    deltas = (torch.empty(layout.numel).uniform_(-1e-3, 1e-3, generator=draw) for _ in range(VARIANTS))
    return [tuple(encode(delta, layout, Code.INT8, seed=n)) for n, delta in enumerate(deltas)]


def _update(site: str, sequence: int, base_version: int, frames: tuple[bytes, ...]) -> Trained:
    return Trained(
        update_id=UpdateId(site=site, incarnation="00000000", sequence=sequence),
        base_version=base_version,
        effort=Effort(num_examples=100, steps=1),
        frames=frames,
    )
