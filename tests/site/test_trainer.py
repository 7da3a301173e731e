"""The daemon's hold on a real trainer process."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from fedbus.bench.local import wait_until
from fedbus.core.layout import Layout
from fedbus.tensors.codec import decode_all_
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from services.site.trainer import Trainer, TrainerDiedError, start_trainer

STUB_TASKS = Path(__file__).parents[1] / "training" / "site_package"
LIMIT = timedelta(seconds=60)


async def load_initial(trainer: Trainer, folder: Path, task: str, task_config: dict[str, object]) -> None:
    """Open a task and load its own initial params as version 0."""
    local = {"steps": 1, "batch_size": 1, "learning_rate": 1.0}
    await trainer.ask(
        p.Open(
            job="job",
            task=task,
            task_config=task_config,
            seed=0,
            site="site-a",
            data=str(folder),
            local=local,
            up="fp32",
            chunk_bytes=1 << 20,
        )
    )
    path = folder / "v0"
    made = await trainer.ask(p.MakeInitial(path=str(path)))
    assert isinstance(made, p.Made)
    layout = Layout.from_dict(made.layout)
    flat = torch.zeros(layout.numel)
    decode_all_(flat, read_frames(path), layout)
    load = p.Load(version=0, digest=digest(flat), snapshot=str(path), layout=made.layout)
    assert await trainer.ask(load) == p.Loaded(version=0)


async def test_a_step_that_goes_on_after_cancel_costs_the_trainer_its_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a trainer in a step that looks at nothing and never ends
    monkeypatch.setenv("PYTHONPATH", str(STUB_TASKS))
    async with start_trainer(lambda _: None, threads=1, cancel_grace=timedelta(seconds=0.2)) as trainer:
        await load_initial(trainer, tmp_path, "stub", {"mode": "block"})
        training = asyncio.create_task(trainer.ask(p.Train(path=str(tmp_path / "delta"), seed=0)))
        await asyncio.to_thread(wait_until, (tmp_path / "in-step").exists, within=LIMIT, what="the step")
        # when the training is cancelled
        for _ in range(10):  # again and again: only the first one counts
            await trainer.cancel()
            await asyncio.sleep(0.05)
        assert training.done()
        # then it ends in the grace, with words, and the process is gone
        with pytest.raises(TrainerDiedError, match=r"went on for 0\.2 s after it was cancelled"):
            await training
        with pytest.raises(TrainerDiedError, match="SIGKILL"):
            await trainer.ask(p.Evaluate(version=0))


async def test_cancel_between_two_trainings_is_no_limit_for_the_next(tmp_path: Path) -> None:
    # given a trainer that was told to cancel while it did nothing
    async with start_trainer(lambda _: None, threads=1, cancel_grace=timedelta(seconds=0)) as trainer:
        await load_initial(trainer, tmp_path, "synthetic", {"numel": 64})
        await trainer.cancel()
        # when it is asked to train
        reply = await trainer.ask(p.Train(path=str(tmp_path / "delta"), seed=0))
        # then it does
        assert isinstance(reply, p.Trained)
