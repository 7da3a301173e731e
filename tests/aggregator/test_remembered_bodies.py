"""Rules that remember what sites sent last: a keeper killed anywhere goes on bit for bit, and the spool stays small."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import Chunk, UpdateId
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Arrival, Committed, Fact, Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors import codec

LAYOUT = Layout.of([TensorSpec(name="weight", shape=(40, 50), dtype="float32")])
PERIODS = {"fast": 1, "mercy": 2, "ucsf": 3, "va": 9, "zurich": 13}
STEPS = 80
SAVE_EVERY = 7
"""Commits between two checkpoints."""


def spec_of(strategy: str) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    keys = {"name": "heart", "task": "t", "seed": 3, "local": local, "stop": {"versions": 99}, "strategy": strategy}
    return TrainingSpec.parse(keys | {"codec": {"up": "fp16", "down": "int8"}})


class Life:
    """A job in `folder`: sites send with their periods, leave and come back; `restart` is a kill and a restart."""

    def __init__(self, folder: Path, strategy: str) -> None:
        self.spec = spec_of(strategy)
        self.folder = folder
        folder.mkdir()
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.aggregation = Aggregation(self.spec, now=0.0)
        self.seq = 0
        self.most_bodies: list[int] = []
        self.keeper = self._keeper()
        self.keeper.start(LAYOUT, torch.linspace(-1, 1, LAYOUT.numel))

    def _keeper(self) -> ModelKeeper:
        self.spool = Spool(self.folder / "spool")
        return ModelKeeper(
            "heart",
            self.spec,
            ledger=self.ledger,
            spool=self.spool,
            folder=self.folder / "job",
        )

    def restart(self) -> None:
        """Everything is read again; only which sites are active is known from elsewhere."""
        facts = [(row.seq, row.fact) for row in self.ledger.facts("heart")]
        active, self.aggregation = self.aggregation.active, Aggregation(self.spec, now=0.0)
        for _, fact in facts:
            self.aggregation.apply(fact)
        self.aggregation.set_active(active, now=0.0)
        self.keeper = self._keeper()
        deque(self.keeper.restore(LAYOUT, facts), maxlen=0)

    def lives(self, *, restart_at: Collection[int] = ()) -> Life:
        for now in range(1, STEPS):
            away = {"ucsf"} if 10 <= now < 75 else set()
            self.aggregation.set_active(PERIODS.keys() - away, now=float(now))
            for site in sorted(PERIODS.keys() - away):
                if now % PERIODS[site] == 0:
                    self._sends(site, now)
            if now in restart_at:
                self.restart()
        return self

    def _sends(self, site: str, now: int) -> None:
        update_id = UpdateId(site=site, incarnation="0123abcd", sequence=now)
        delta = torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(now * 100 + len(site)))
        frames = list(codec.encode(delta, LAYOUT, Code.FP16, seed=0))
        chunks = [
            Chunk(job="heart", transfer=str(update_id), part="update", index=i, count=len(frames), body=frame)
            for i, frame in enumerate(frames)
        ]
        self.ledger.record_arrivals(self.spool.append(chunks), [], at=0.0)
        version, norm = self.aggregation.version, self.keeper.inspect(str(update_id)).norm
        base = max(0, version - random.Random(now).randint(0, 2))
        arrival = Arrival(update_id=update_id, base_version=base, effort=Effort(num_examples=PERIODS[site]), norm=norm)
        fact = self.aggregation.receive(arrival, now=float(now))
        assert isinstance(fact, Folded)
        self._record(fact)
        self.keeper.fold(fact)
        if self.aggregation.commit_due(now=float(now)):
            self._commits(now)

    def _commits(self, now: int) -> None:
        fact = self.aggregation.commit(now=float(now))
        self._record(fact)
        deque(self.keeper.commit(fact).frames, maxlen=0)
        if fact.version % SAVE_EVERY == 0:
            self.keeper.save(version=fact.version, fact_seq=self.seq)
            self.most_bodies.append(len(list(self.spool.path("heart", "x").parent.glob("*.frames"))))

    def _record(self, fact: Fact) -> None:
        self.seq = self.ledger.record_facts("heart", [fact], at=0.0)

    def facts(self) -> list[Fact]:
        return [row.fact for row in self.ledger.facts("heart")]

    def bits(self) -> dict[str, bytes]:
        return {name: tensor.numpy().tobytes() for name, tensor in self.keeper.model.state().items()}


@pytest.fixture(params=["calibrated", "auto"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "restart_at", [[1], [15], [16], [30, 31, 32], range(STEPS)], ids=["1", "15", "16", "30 to 32", "always"]
)
def test_killed_and_restarted_it_holds_the_same_bits(
    tmp_path: Path, strategy: str, restart_at: Collection[int]
) -> None:
    expected = Life(tmp_path / "never", strategy).lives()
    # when: checkpoints lie some commits back, so that remembered bodies are read again
    found = Life(tmp_path / "killed", strategy).lives(restart_at=restart_at)
    # then
    assert any(fold.also for fold in expected.facts() if isinstance(fold, Folded))
    assert any(commit.corrections and commit.remembers for commit in commits(expected))
    assert strip(found.facts()) == strip(expected.facts())
    assert found.bits() == expected.bits()


def commits(life: Life) -> list[Committed]:
    return [fact for fact in life.facts() if isinstance(fact, Committed)]


def strip(facts: list[Fact]) -> list[Any]:
    return [(type(fact), getattr(fact, "also", None), getattr(fact, "corrections", None)) for fact in facts]


def test_with_a_damaged_newest_checkpoint_the_one_before_still_has_its_bodies(tmp_path: Path, strategy: str) -> None:
    life = Life(tmp_path / "life", strategy).lives()
    expected = life.bits()
    newest = sorted((life.folder / "job" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])

    life.restart()

    assert life.bits() == expected


def test_the_spool_holds_what_is_remembered_and_what_two_checkpoints_do_not_cover(
    tmp_path: Path, strategy: str
) -> None:
    life = Life(tmp_path / "life", strategy).lives()
    buffer = 2
    folded_between = (SAVE_EVERY + 1) * (buffer + 2)
    assert len(life.facts()) > 2 * folded_between
    assert max(life.most_bodies) <= 2 * len(PERIODS) + folded_between


def test_auto_turns_to_calibrated_in_the_middle_and_fills_its_memory(tmp_path: Path) -> None:
    life = Life(tmp_path / "life", "auto").lives()
    chosen = [fact for fact in commits(life) if fact.rule]
    assert [fact.rule for fact in chosen] == ["calibrated"]
    assert {term.update_id.site for term in chosen[0].corrections} >= {"fast", "mercy"}
    assert "memory" in life.bits()
