"""A trainer of several ranks, as its daemon sees it: they end together."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import structlog
import torch

from fedbus.core.protocol.layout import Layout
from fedbus.site.job.trainer import Trainer, TrainerDiedError, start_trainer
from fedbus.tensors.codec import decode_all_
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from tests.other_processes import ended

STUB_TASKS = Path(__file__).parents[1] / "training" / "site_package"


async def load_initial(trainer: Trainer, folder: Path) -> p.Opened:
    """Open the task at two ranks and load its own initial params as version 0."""
    opening = p.Open(
        job="job",
        task="ranked",
        task_config={},
        seed=0,
        site="site-a",
        data=str(folder),
        local={"steps": 3, "batch_size": 5, "learning_rate": 0.1},
        chunk_bytes=1 << 20,
        device="cpu",
        ranks=("cpu",),
    )
    opened = await trainer.ask(opening)
    made = await trainer.ask(p.MakeInitial(path=str(folder / "v0")))
    assert isinstance(opened, p.Opened)
    assert isinstance(made, p.Made)
    layout = Layout.from_dict(made.layout)
    flat = torch.zeros(layout.numel)
    decode_all_(flat, read_frames(folder / "v0"), layout)
    load = p.Load(version=0, digest=digest(flat), snapshot=str(folder / "v0"), layout=made.layout)
    assert await trainer.ask(load) == p.Loaded(version=0)
    return opened


async def test_a_rank_that_is_killed_ends_the_trainer_which_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a trainer with a second rank, which has trained
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STUB_TASKS), os.environ.get("PYTHONPATH", "")]))
    train = p.Train(path=str(tmp_path / "delta"), seed=0)
    with structlog.testing.capture_logs() as lines:
        async with start_trainer(lambda _: None, threads=1) as trainer:
            opened = await load_initial(trainer, tmp_path)
            (tmp_path / "mode").write_text("")
            trained = await trainer.ask(train)
            ranks = psutil.Process(trainer.pid).children()
            # when that rank is killed in a step
            (tmp_path / "mode").write_text("die")
            with pytest.raises(TrainerDiedError, match="its last words are in the log"):
                await trainer.ask(train)
    # then the trainer has ended as well, with a reason
    assert opened.device == "cpu, 2 ranks"
    assert isinstance(trained, p.Trained)
    assert len(ranks) == 1
    assert ended(ranks[0])
    said = [line["line"] for line in lines if line["event"] == "task-output"]
    assert any("rank 1 of 2 was killed by SIGKILL; all ranks end" in line for line in said)


async def test_the_ranks_end_with_their_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STUB_TASKS), os.environ.get("PYTHONPATH", "")]))
    async with start_trainer(lambda _: None, threads=1) as trainer:
        await load_initial(trainer, tmp_path)
        (rank,) = psutil.Process(trainer.pid).children()
        psutil.Process(trainer.pid).kill()
    assert ended(rank)
