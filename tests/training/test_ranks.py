"""Several ranks of a session train what one process trains, to rounding; where they would not, one goes on alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from fedbus.core.protocol.layout import Layout
from fedbus.errors import TaskError
from fedbus.tensors import codec
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from fedbus.training.session import Session
from tests.other_processes import command

pytestmark = pytest.mark.usefixtures("tasks_of_the_site")


class Site:
    """A session and its folder, with version 0 loaded."""

    def __init__(self, folder: Path, *, ranks: int, **local: Any) -> None:
        self.folder = folder
        self.left: list[int] = []
        spec = {"steps": 12, "batch_size": 5, "learning_rate": 0.05, "proximal_mu": 0.1} | local
        fields: dict[str, Any] = {"job": "job", "task": "ranked", "task_config": {}, "site": "site-a", "device": "cpu"}
        fields |= {"data": str(folder), "local": spec, "chunk_bytes": 1 << 20, "ranks": ("cpu",) * (ranks - 1)}
        self.session = Session(p.Open(seed=5, **fields), leave=self.left.append)
        made = self.session.make_initial(p.MakeInitial(path=str(folder / "v0")))
        self.layout = Layout.from_dict(made.layout)
        flat = self.decoded("v0")
        snapshot = str(folder / "v0")
        self.session.load(p.Load(version=0, digest=digest(flat), snapshot=snapshot, layout=made.layout))

    def decoded(self, name: str) -> torch.Tensor:
        flat = torch.zeros(self.layout.numel)
        codec.decode_change_(flat, read_frames(self.folder / name), self.layout)
        return flat

    def ask(self, mode: str, *, cancel: threading.Event | None = None, steps: int | None = None) -> Any:
        (self.folder / "mode").write_text(mode)
        command = p.Train(path=str(self.folder / "update"), seed=9, steps=steps)
        return self.session.train(command, cancel or threading.Event(), lambda *_: None)

    def trained(self, mode: str) -> tuple[torch.Tensor, Any]:
        answer = self.ask(mode)
        return self.decoded("update"), answer.effort


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("alone"), ranks=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("pair"), ranks=2)
    yield site
    site.session.close()
    assert not site.left


@pytest.mark.parametrize("mode", ["", "clip", "twice", "unused", "steps", "fetched", "ratio"])
def test_two_ranks_train_what_one_does_with_the_same_batches(alone: Site, pair: Site, mode: str) -> None:
    expected, one = alone.trained(mode)
    found, two = pair.trained(mode)

    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)
    assert (two.num_examples, two.steps) == (one.num_examples, one.steps)
    assert two.metrics == pytest.approx(one.metrics, rel=1e-4)


def test_an_error_at_one_rank_ends_the_training_of_all_and_they_live_on(pair: Site) -> None:
    with pytest.raises(TaskError, match="rank 1 of 2 failed") as failed:
        pair.ask("fail")
    assert "4711" not in str(failed.value)
    assert pair.ask("").effort.steps == 12


def test_rank_0_decides_when_it_is_over(pair: Site) -> None:
    cancel = threading.Event()
    stepped = pair.folder / "stepped"
    stepped.unlink(missing_ok=True)

    def cancel_after_a_step() -> None:
        while not stepped.exists():
            pass
        cancel.set()

    threading.Thread(target=cancel_after_a_step).start()
    cancelled = pair.ask("slow", cancel=cancel, steps=1_000_000)
    assert isinstance(cancelled, p.Cancelled)
    assert 0 < cancelled.steps < 1_000_000
    assert pair.ask("", steps=3).effort.steps == 3


def followers() -> list[psutil.Process]:
    """Ranks that this process has started; it may have a broker for other tests as well."""
    return [child for child in psutil.Process().children() if "fedbus.training.ranks" in command(child)]


def test_what_several_ranks_cannot_train_one_trains_alone_from_then_on(
    alone: Site, pair: Site, caplog: pytest.LogCaptureFixture
) -> None:
    assert pair.session.opened().device == "cpu, 2 ranks"
    assert followers()
    expected, _ = alone.trained("head")
    found, effort = pair.trained("head")
    assert "steps tensors that are not of its model: from now on cpu alone trains" in caplog.text
    assert torch.equal(found, expected)
    assert effort.steps == 12
    assert not followers()
    assert torch.equal(pair.trained("")[0], alone.trained("")[0])
