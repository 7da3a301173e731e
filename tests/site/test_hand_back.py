"""Which versions a site gives back to its annotation server: now and then, the last, and never a worse one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fedbus.core.spec.training import TrainingSpec
from fedbus.site.job.hand_back import HandBack, Receiver
from fedbus.site.trainer_errors import TrainerFailedError
from fedbus.sources.settings import SourceSettings
from fedbus.training import protocol as p

SPEC: dict[str, Any] = {
    "name": "kidneys",
    "task": "segmentation",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 9, "target": {"metric": "dice", "at_least": 0.9}},
}


class Scribe:
    """A trainer that writes what it is asked to; `fails` when it has written a part, where it is set."""

    pid = 1

    def __init__(self) -> None:
        self.asked: list[p.Save] = []
        self.fails: p.Failed | None = None

    async def ask(self, command: p.Command) -> p.Reply:
        assert isinstance(command, p.Save)
        self.asked.append(command)
        await asyncio.to_thread(Path(command.path).write_bytes, str(command.version).encode())
        if self.fails is not None:
            raise TrainerFailedError(self.fails)
        return p.Saved(version=command.version)

    async def cancel(self) -> None:
        raise AssertionError("nothing is trained here")


class Desk:
    """A hand-back with a server that takes everything."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.taken: list[str] = []
        found = SourceSettings(kind="folder", folder=folder, model_file=folder / "model.pt", **settings)
        receiver = Receiver(settings=found, publish=self.publish)
        self.scribe = Scribe()
        self.folder = folder
        self.back = HandBack("kidneys", TrainingSpec.parse(SPEC), folder=folder, receiver=receiver)

    async def publish(self, artifact: Path) -> bool:
        self.taken.append(await asyncio.to_thread(artifact.read_text))
        return True

    async def holds(self, version: int, *, over: bool = False, dice: float | None = None) -> None:
        if dice is not None:
            self.back.scored(version, {"dice": dice})
        if self.back.is_due(version, over=over):
            await self.back.give(self.scribe, version)
            async with asyncio.TaskGroup() as group:
                running = group.create_task(self.back.run())
                await self.back.finish()
                running.cancel()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, hand_back_every=3)


async def test_every_so_many_versions_and_the_last(desk: Desk) -> None:
    for version in range(8):
        await desk.holds(version)
    await desk.holds(8, over=True)
    await desk.holds(8, over=True)
    assert desk.taken == ["3", "6", "8"]
    assert [path.name for path in desk.folder.iterdir()] == []


async def test_a_version_that_scored_worse_here_is_not_given(desk: Desk) -> None:
    await desk.holds(3, dice=0.7)
    await desk.holds(6, dice=0.6)
    await desk.holds(7, dice=0.8)
    await desk.holds(8, dice=0.5, over=True)
    assert desk.taken == ["3", "7"]


async def test_jobs_of_another_task_give_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, model_task="hearts", hand_back_every=1)
    await desk.holds(5, over=True)
    assert desk.scribe.asked == []


@pytest.mark.parametrize(("fatal", "asked"), [(True, 1), (False, 2)])
async def test_a_model_that_cannot_be_written_costs_nothing_else(desk: Desk, fatal: bool, asked: int) -> None:
    desk.scribe.fails = p.Failed(error="other tensors", traceback="", fatal=fatal)
    await desk.holds(3)
    await desk.holds(6)
    assert (desk.taken, len(desk.scribe.asked)) == ([], asked)
    assert [path.name for path in desk.folder.iterdir()] == []
