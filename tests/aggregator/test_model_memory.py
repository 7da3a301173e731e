"""The tensors of a job cost the model copies that `GlobalModel` names and a few frames, whatever is done with them."""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import Chunk, UpdateId, UpdateKind, UpdateManifest
from fedbus.core.rules.facts import Committed, Fact, Folded, Term
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors import codec
from fedbus.tensors.global_model import MEMORY_COPIES, MODEL_COPIES

MIB = 1 << 20
MODEL_BYTES = 32 * MIB
BEYOND_BYTES = 24 * MIB
"""Frames and their elements; less than a model, so that no hidden copy fits in."""
LAYOUT = Layout.of(
    [
        TensorSpec(name="w", shape=(MODEL_BYTES // 8,), dtype="float32"),
        TensorSpec(name="half", shape=(MODEL_BYTES // 8,), dtype="float16"),
    ]
)
UPDATE = UpdateId(site="mercy", incarnation="0123abcd", sequence=1)
MOMENTS = {"plain": 0, "adam": 2}


@dataclass(slots=True)
class Growth:
    """By how much the resident memory of this process grew inside the block, at most."""

    peak_bytes: int = 0


@contextmanager
def growth() -> Iterator[Growth]:
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak begins anew at what is resident now
    before, found = resident("VmRSS"), Growth()
    yield found
    found.peak_bytes = resident("VmHWM") - before


def resident(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Aggregator:
    """What a keeper works with, in one folder."""

    def __init__(self, folder: Path, kind: str = "plain") -> None:
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.spool = Spool(folder / "spool")
        self.folder = folder
        (folder / "params").mkdir(exist_ok=True)
        self.spec = TrainingSpec.parse(
            {
                "name": "heart",
                "task": "t",
                "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
                "server_optimizer": {"kind": kind},
                "stop": {"versions": 9},
            }
        )

    def keeper(self) -> ModelKeeper:
        return ModelKeeper(
            "heart",
            self.spec,
            ledger=self.ledger,
            spool=self.spool,
            folder=self.folder / "job",
        )

    def put(self, flat: torch.Tensor, code: Code) -> UpdateManifest:
        """An update in the spool."""
        chunks = [
            Chunk(job="heart", transfer=str(UPDATE), part="update", index=i, count=1 << 10, body=frame)
            for i, frame in enumerate(codec.encode(flat, LAYOUT, code, seed=0))
        ]
        self.ledger.record_arrivals(self.spool.append(chunks), [], at=0.0)
        return UpdateManifest(
            job="heart",
            update_id=str(UPDATE),
            kind=UpdateKind.INITIAL,
            base_version=0,
            effort=Effort(num_examples=1),
            layout_digest=LAYOUT.digest,
            frames=len(chunks),
            body_bytes=sum(len(chunk.body) for chunk in chunks),
            layout=LAYOUT.to_dict(),
        )


FACTS: list[tuple[int, Fact]] = [
    (1, Folded(update_id=UPDATE, base_version=0, num_examples=1, staleness=0, weight=1, clip=1, norm=1, at=0)),
    (2, Committed(version=1, update_ids=(UPDATE,), normaliser=1, reason="full", at=0)),
]


def lives(keeper: ModelKeeper, *, remembers: bool = False) -> None:
    """Everything that is done with a model once it is there."""
    folded, committed = FACTS[0][1], FACTS[1][1]
    if remembers:
        committed = dataclasses.replace(committed, remembers=True)
    assert isinstance(folded, Folded)
    assert isinstance(committed, Committed)
    keeper.inspect(str(UPDATE))
    keeper.fold(folded)
    deque(keeper.commit(committed).frames, maxlen=0)
    deque(keeper.snapshot(1).frames, maxlen=0)
    keeper.save(version=1, fact_seq=2)
    if remembers:
        taken_out = (Term(update_id=UPDATE, factor=-1.0),)
        again = dataclasses.replace(folded, update_id=dataclasses.replace(UPDATE, sequence=2), also=taken_out)
        keeper.inspect(str(UPDATE))
        keeper.fold(again)
        deque(keeper.commit(dataclasses.replace(committed, version=2, memory=0.5)).frames, maxlen=0)
    keeper.export()


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("kind", MOMENTS)
def test_a_whole_life_costs_the_copies_that_are_named(tmp_path: Path, kind: str, remembers: bool) -> None:
    aggregator = Aggregator(tmp_path, kind)
    manifest = aggregator.put(torch.ones(LAYOUT.numel), Code.FP32)
    keeper = aggregator.keeper()

    with growth() as found:
        keeper.adopt_initial(manifest)
        lives(keeper, remembers=remembers)

    copies = MODEL_COPIES + MOMENTS[kind] + (MEMORY_COPIES if remembers else 0)
    assert found.peak_bytes < copies * MODEL_BYTES + BEYOND_BYTES


def test_so_does_a_start_from_a_file(tmp_path: Path) -> None:
    aggregator = Aggregator(tmp_path)
    params = {spec.name: torch.ones(spec.shape).half() for spec in LAYOUT.tensors}
    save_file(params, tmp_path / "params" / "first.safetensors")
    manifest = aggregator.put(torch.zeros(LAYOUT.numel), Code.FP32)
    keeper = aggregator.keeper()

    with growth() as found:
        keeper.adopt_file(manifest, tmp_path / "params" / "first.safetensors")

    assert found.peak_bytes < MODEL_COPIES * MODEL_BYTES + BEYOND_BYTES


@pytest.mark.parametrize("damaged", [False, True])
def test_so_does_a_restart_even_with_a_checkpoint_that_is_damaged(tmp_path: Path, damaged: bool) -> None:
    aggregator = Aggregator(tmp_path, "adam")
    before = aggregator.keeper()
    before.start(LAYOUT, torch.ones(LAYOUT.numel))
    aggregator.put(torch.ones(LAYOUT.numel), Code.INT8)
    lives(before)
    del before
    if damaged:
        newest = sorted((tmp_path / "job" / "checkpoints").iterdir())[-1]
        with newest.open("r+b") as file:
            file.seek(newest.stat().st_size // 4)
            file.write(b"\xff" * 1000)
    keeper = aggregator.keeper()

    with growth() as found:
        made = [delta.version for delta in keeper.restore(LAYOUT, FACTS)]

    assert made == ([1] if damaged else [])
    assert found.peak_bytes < (MODEL_COPIES + MOMENTS["adam"]) * MODEL_BYTES + BEYOND_BYTES
