"""The stub trainer of the soak: answers as a trainer does, trains nothing, imports no torch."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fedbus.bench.stub_sites import PreparedUpdate, StubPlan, StubTrainer
from fedbus.site.job.trainer import TrainerDiedError
from fedbus.training import protocol as p


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedUpdate:
    frames = tmp_path / "prepared"
    frames.write_bytes(b"frames")
    return PreparedUpdate(frames=str(frames), frame_sizes=(6,), initial=str(frames), initial_sizes=(6,), numel=10)


def trainer(update: PreparedUpdate, train_s: float) -> StubTrainer:
    return StubTrainer(update, train_s=train_s, draw=random.Random(0))


async def test_a_training_leaves_the_prepared_update_from_the_version_that_was_loaded(
    prepared: PreparedUpdate, tmp_path: Path
) -> None:
    stub = trainer(prepared, 0.01)
    await stub.ask(p.Load(version=7, digest="d"))
    reply = await stub.ask(p.Train(path=str(tmp_path / "1.frames"), seed=3))
    assert isinstance(reply, p.Trained)
    assert (reply.base_version, reply.frame_sizes) == (7, (6,))
    assert (tmp_path / "1.frames").read_bytes() == b"frames"


async def test_what_the_outbox_deletes_is_there_for_the_next_training(prepared: PreparedUpdate, tmp_path: Path) -> None:
    stub = trainer(prepared, 0.01)
    for _ in range(2):
        await stub.ask(p.Train(path=str(tmp_path / "1.frames"), seed=3))
        (tmp_path / "1.frames").unlink()
    assert (tmp_path / "prepared").read_bytes() == b"frames"


async def test_a_training_that_is_cancelled_leaves_nothing(prepared: PreparedUpdate, tmp_path: Path) -> None:
    stub = trainer(prepared, 3600)
    training = asyncio.create_task(stub.ask(p.Train(path=str(tmp_path / "1.frames"), seed=3)))
    await asyncio.sleep(0)
    await stub.cancel()
    async with asyncio.timeout(5):
        assert isinstance(await training, p.Cancelled)
    assert not (tmp_path / "1.frames").exists()


async def test_it_makes_the_prepared_params(prepared: PreparedUpdate, tmp_path: Path) -> None:
    made = await trainer(prepared, 1).ask(p.MakeInitial(path=str(tmp_path / "0.frames")))
    assert isinstance(made, p.Made)
    assert (made.digest, made.frame_sizes) == (prepared.layout.digest, (6,))
    assert (tmp_path / "0.frames").read_bytes() == b"frames"


async def test_it_does_not_pretend_to_answer_what_no_trainer_is_asked(prepared: PreparedUpdate) -> None:
    with pytest.raises(TrainerDiedError, match="Close"):
        await trainer(prepared, 1).ask(p.Close())


def test_a_plan_is_read_as_it_was_written_and_by_nobody_else(prepared: PreparedUpdate, tmp_path: Path) -> None:
    plan = StubPlan(urls={"site-a": "amqp://a:secret@h/v"}, folder=str(tmp_path), update=prepared, train_s=5)
    plan.write(tmp_path / "plan.json")
    assert StubPlan.read(tmp_path / "plan.json") == plan
    assert (tmp_path / "plan.json").stat().st_mode & 0o077 == 0


def test_the_process_of_the_sites_imports_no_torch() -> None:
    code = "import sys, fedbus.bench.stub_sites; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "torch" not in done.stdout.split()
