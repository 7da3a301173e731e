"""Updates that wait together are decided together: folded one by one, recorded in one write, told only then."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.job.checkpointing import Checkpointing
from fedbus.aggregator.job.folding import Folding
from fedbus.aggregator.tools import Tools
from fedbus.bus.post import Post
from fedbus.core.job.membership import Membership
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.events import Happened
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DecodeError
from fedbus.store.ledger import Ledger
from fedbus.tensors.global_model import Inspection

LAYOUT = Layout.of([TensorSpec(name="w", shape=(10,), dtype="float32")])


class Keeper:
    """Tensors that are only written down; `unusable` updates cannot be read."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.unusable: set[str] = set()

    def inspect(self, update_id: str) -> Inspection:
        self.done.append(f"inspect {update_id}")
        if update_id in self.unusable:
            raise DecodeError("not a frame")
        return Inspection(norm=1.0, finite=True)

    def fold(self, fact: Folded) -> None:
        self.done.append(f"fold {fact.update_id}")

    def drop(self, update_id: str) -> None:
        self.done.append(f"drop {update_id}")


class Announcer:
    """Keeps what the aggregator says."""

    def __init__(self) -> None:
        self.receipts: list[tuple[str, str]] = []

    async def tell(self, site: str | None, message: Any) -> None:
        self.receipts.append((message.update_id, str(message.outcome)))

    async def event(self, job: str, happened: Happened) -> None:
        pass


class Desk:
    """Folding of one job with a real ledger; `writes` counts what went through the store."""

    def __init__(self, folder: Path) -> None:
        spec = TrainingSpec.parse(
            {
                "name": "heart",
                "task": "t",
                "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
                "strategy": {"kind": "buffered", "buffer": 10},
                "stop": {"versions": 9},
            }
        )
        self.keeper, self.announcer, self.writes = Keeper(), Announcer(), 0
        self.ledger = Ledger(folder / "ledger.sqlite3")
        tools = Tools(
            session="s",
            ledger=self.ledger,
            store=self.store,  # type: ignore[arg-type]
            compute=_at_once,  # type: ignore[arg-type]
            saving=_at_once,  # type: ignore[arg-type]
            post=Post(),
            announcer=self.announcer,  # type: ignore[arg-type]
            membership=Membership(),
            score_timeout_s=5.0,
            checkpoint_interval_s=0.0,
        )
        self.folding = Folding(
            "heart",
            spec,
            LAYOUT,
            aggregation=Aggregation(spec, now=time.monotonic()),
            keeper=self.keeper,  # type: ignore[arg-type]
            checkpoints=Checkpointing(self.keeper, tools=tools),  # type: ignore[arg-type]
            log=None,  # type: ignore[arg-type]
            tools=tools,
        )

    async def store(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.writes += 1
        return function(*args, **kwargs)

    @property
    def recorded(self) -> list[str]:
        """Ids of the updates that the ledger has decided, in order."""
        facts = [row.fact for row in self.ledger.facts("heart")]
        return [str(fact.update_id) for fact in facts]  # type: ignore[union-attr]


async def _at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def update(sequence: int) -> m.UpdateManifest:
    return m.UpdateManifest(
        job="heart",
        update_id=f"mercy:0123abcd:{sequence}",
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=5),
        layout_digest=LAYOUT.digest,
        frames=1,
        body_bytes=9,
    )


A, B, C = (update(n).update_id for n in range(3))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_updates_taken_together_are_folded_in_order_and_recorded_in_one_write(desk: Desk) -> None:
    for n in range(3):
        await desk.folding.take(update(n))
    await desk.folding.settle()
    assert desk.keeper.done == [f"{what} {u}" for u in (A, B, C) for what in ("inspect", "fold")]
    assert desk.writes == 1
    assert desk.recorded == [A, B, C]


async def test_a_site_is_told_when_what_is_due_was_committed_and_not_twice(desk: Desk) -> None:
    # told at once, it would begin to train from the version before, without what it has just sent
    await desk.folding.take(update(0))
    await desk.folding.settle()
    assert desk.announcer.receipts == []
    await desk.folding.tell()
    await desk.folding.tell()
    assert desk.announcer.receipts == [(A, "folded")]


async def test_nobody_is_told_of_a_decision_that_is_not_on_record(desk: Desk) -> None:
    await desk.folding.take(update(0))
    assert desk.recorded == []
    assert desk.announcer.receipts == []


async def test_a_refusal_is_recorded_after_the_folds_before_it(desk: Desk) -> None:
    # given three updates of which the second cannot be read
    desk.keeper.unusable = {B}
    for n in range(3):
        await desk.folding.take(update(n))
    await desk.folding.settle()
    # then the facts stand in the order of the decisions, and only the others are folded
    assert desk.recorded == [A, B, C]
    await desk.folding.tell()
    assert sorted(desk.announcer.receipts) == [(A, "folded"), (B, "refused"), (C, "folded")]
    assert [done for done in desk.keeper.done if done.startswith("fold")] == [f"fold {A}", f"fold {C}"]


async def test_an_update_that_comes_twice_in_one_go_is_folded_once(desk: Desk) -> None:
    await desk.folding.take(update(0))
    await desk.folding.take(update(0))
    await desk.folding.settle()
    await desk.folding.tell()
    assert desk.keeper.done == [f"inspect {A}", f"fold {A}"]
    assert desk.announcer.receipts == [(A, "folded")]


async def test_settling_nothing_writes_nothing(desk: Desk) -> None:
    await desk.folding.settle()
    assert desk.writes == 0
