"""The daemon's hold on a real trainer process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import structlog
import torch

from fedbus.core.protocol.layout import Layout
from fedbus.local.federation import wait_until
from fedbus.site.job.trainer import Trainer, TrainerDiedError, start_trainer
from fedbus.tensors.codec import decode_all_
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from tests.other_processes import ended

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
            await trainer.ask(p.Score(version=0))


def spawned(folder: Path) -> list[psutil.Process]:
    """What the stub's training has started, once it has."""
    wait_until((folder / "spawned").exists, within=LIMIT, what="the processes of the task")
    return [psutil.Process(int(pid)) for pid in (folder / "spawned").read_text().split()]


def wait_gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: all(map(ended, processes)), within=LIMIT, what="the end of what the task started")


async def test_what_a_task_started_ends_with_its_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a task that has started processes: plain, orphaned, forked and in a session of its own
    monkeypatch.setenv("PYTHONPATH", str(STUB_TASKS))
    async with start_trainer(lambda _: None, threads=1) as trainer:
        await load_initial(trainer, tmp_path, "stub", {"mode": "spawn"})
        await trainer.ask(p.Train(path=str(tmp_path / "delta"), seed=0))
        processes = await asyncio.to_thread(spawned, tmp_path)
        assert len(processes) == 4
        assert all(process.is_running() for process in processes)
    # when the trainer is told to close, then they are gone with it
    wait_gone(processes)


async def test_what_a_task_started_does_not_hide_that_its_trainer_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a training in which a fork holds the trainer's socket open
    monkeypatch.setenv("PYTHONPATH", str(STUB_TASKS))
    async with start_trainer(lambda _: None, threads=1) as trainer:
        await load_initial(trainer, tmp_path, "stub", {"mode": "spawn-block"})
        training = asyncio.create_task(trainer.ask(p.Train(path=str(tmp_path / "delta"), seed=0)))
        processes = await asyncio.to_thread(spawned, tmp_path)
        # when the trainer is killed, as the kernel does when memory runs out
        os.kill(trainer.pid, signal.SIGKILL)
        # then the daemon hears of it, and nothing is left
        async with asyncio.timeout(LIMIT.total_seconds()):
            with pytest.raises(TrainerDiedError, match=f"the trainer process {trainer.pid} was killed by SIGKILL"):
                await training
        await asyncio.to_thread(wait_gone, processes)


DAEMON = """
import asyncio, sys
from pathlib import Path
from tests_of_trainer import load_initial
from fedbus.site.job.trainer import start_trainer
from fedbus.training import protocol as p

async def main():
    folder = Path(sys.argv[1])
    async with start_trainer(lambda _: None, threads=1) as trainer:
        await load_initial(trainer, folder, "stub", {"mode": "spawn-block"})
        await trainer.ask(p.Train(path=str(folder / "delta"), seed=0))

asyncio.run(main())
"""


def test_what_a_task_started_ends_when_the_daemon_is_killed(tmp_path: Path) -> None:
    # given a daemon in a training that has started processes
    code = DAEMON.replace("tests_of_trainer", Path(__file__).stem)
    path = os.pathsep.join(map(str, (STUB_TASKS, Path(__file__).parent, Path(__file__).parents[2])))
    daemon = subprocess.Popen([sys.executable, "-c", code, tmp_path], env=os.environ | {"PYTHONPATH": path})
    processes = [*spawned(tmp_path), *psutil.Process(daemon.pid).children(recursive=True)]
    # when it is killed without a word
    daemon.kill()
    daemon.wait()
    # then trainer, guardian and all that they started are gone
    wait_gone(processes)


async def test_a_flood_of_output_keeps_neither_the_task_waiting_nor_the_log_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a task that prints a million lines
    monkeypatch.setenv("PYTHONPATH", str(STUB_TASKS))
    with structlog.testing.capture_logs() as lines:
        async with start_trainer(lambda _: None, threads=1) as trainer:
            await load_initial(trainer, tmp_path, "stub", {"mode": "print"})
            # when it trains, it is done
            assert isinstance(await trainer.ask(p.Train(path=str(tmp_path / "delta"), seed=0)), p.Trained)
    # then the log has its first lines and says how much it has not
    kept = [line["line"] for line in lines if line["event"] == "task-output"]
    assert kept[0] == "patient 0"
    assert len(kept) < 1000
    lost = [line["text"] for line in lines if line["event"] == "task-output-lost"]
    assert sum(int(text.split()[0]) for text in lost) + len(kept) >= 1_000_000


async def test_cancel_between_two_trainings_is_no_limit_for_the_next(tmp_path: Path) -> None:
    # given a trainer that was told to cancel while it did nothing
    async with start_trainer(lambda _: None, threads=1, cancel_grace=timedelta(seconds=0)) as trainer:
        await load_initial(trainer, tmp_path, "synthetic", {"numel": 64})
        await trainer.cancel()
        # when it is asked to train
        reply = await trainer.ask(p.Train(path=str(tmp_path / "delta"), seed=0))
        # then it does
        assert isinstance(reply, p.Trained)


async def test_a_trainer_starts_whatever_the_folder_for_temporary_files_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a folder whose name is longer than that of a socket may be, and which is not there
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 121)))
    async with start_trainer(lambda _: None, threads=1) as trainer:
        await load_initial(trainer, tmp_path, "synthetic", {"numel": 64})
        assert psutil.pid_exists(trainer.pid)


@pytest.mark.parametrize("mode", [0o644, None], ids=["not executable", "not there"])
async def test_an_interpreter_that_cannot_be_started_is_trouble_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None
) -> None:
    python = tmp_path / "python"
    if mode is not None:
        python.touch(mode)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(TrainerDiedError, match=r"could not be started: \w+Error \(E\w+\)") as caught:
        async with start_trainer(lambda _: None, threads=1):
            pass
    assert str(tmp_path) not in caught.value.said


async def test_an_interpreter_without_fedbus_is_trouble_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(TrainerDiedError, match=r"did not start \(exit code 3\)"):
        async with start_trainer(lambda _: None, threads=1):
            pass
