"""How long a checkpoint holds up the thread that folds, the next commit, and how long until the disk has it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.bench.figures import MIB, Row, row
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool

SPEC = {
    "name": "checkpoint",
    "task": "synthetic",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0},
    "stop": {"versions": 1},
}


def rows(*, sizes_mib: Sequence[int], times: int) -> Iterator[Row]:
    """Median milliseconds of `times` checkpoints of a model that remembers nothing, for each size."""
    for mib in sizes_mib:
        with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as folder:
            found = [*zip(*_measured(Path(folder), mib * MIB // 4, times), strict=True)]
        for what, took_ms in zip(("folding", "the next commit", "the next checkpoint"), found, strict=True):
            yield row(f"{mib} MiB: a checkpoint holds up {what}", statistics.median(took_ms), "ms")


def _measured(folder: Path, numel: int, times: int) -> Iterator[tuple[float, float, float]]:
    """Milliseconds until a checkpoint is begun, until it is read, and until the disk has it."""
    layout = Layout.of([TensorSpec(name="w", shape=(numel,), dtype="float32")])
    with Ledger(folder / "ledger.sqlite3") as ledger:
        spool = Spool(folder / "spool")
        keeper = ModelKeeper("checkpoint", TrainingSpec.parse(SPEC), ledger=ledger, spool=spool, folder=folder / "job")
        keeper.start(layout, torch.rand(numel))
        for version in range(1, times + 1):
            read_at: list[float] = []
            began = time.perf_counter()
            saving = keeper.begin_save(version=version, fact_seq=version)
            begun_at = time.perf_counter()
            saving.write(read=partial(_mark, read_at))
            written_at = time.perf_counter()
            yield 1e3 * (begun_at - began), 1e3 * (read_at[0] - began), 1e3 * (written_at - began)


def _mark(times: list[float]) -> None:
    times.append(time.perf_counter())
