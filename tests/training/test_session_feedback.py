"""Trainings under a code that leaves something out: the residual goes in and comes out as files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.layout import Layout
from fedbus.tensors import codec
from fedbus.tensors.digest import digest
from fedbus.tensors.secant import SecantProbe
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from fedbus.training.session import Session

SITE_PACKAGE = Path(__file__).parent / "site_package"


@pytest.fixture(autouse=True)
def site_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE_PACKAGE))


class Bench:
    """A session at version 0, whose every training gives the same delta; files by name in `folder`."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        local = {"steps": 3, "batch_size": 1, "learning_rate": 0.1}
        fields = {"task": "stub", "task_config": {"channels": 512}, "seed": 5, "site": "site-a", "device": "cpu"}
        opening = p.Open(job="job", data=str(folder), local=local, chunk_bytes=1 << 20, **(fields | options))
        self.session = Session(opening)
        made = self.session.make_initial(p.MakeInitial(path=str(folder / "v0")))
        self.layout = Layout.from_dict(made.layout)
        load = p.Load(version=0, digest=digest(self.read("v0")), snapshot=str(folder / "v0"), layout=made.layout)
        assert self.session.load(load) == p.Loaded(version=0)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str) -> Tensor:
        flat = torch.zeros(self.layout.numel)
        codec.decode_change_(flat, read_frames(self.folder / name), self.layout)
        return flat

    def train(self, name: str, *, seed: int = 1, add: tuple[str, ...] = (), subtract: tuple[str, ...] = ()) -> Tensor:
        """Train with feedback and return what is sent; `name`.before and `name`.after are the residuals."""
        command = p.Train(
            path=self.path(name),
            seed=seed,
            residual_add=tuple(map(self.path, add)),
            residual_subtract=tuple(map(self.path, subtract)),
            residual_before=self.path(f"{name}.before"),
            residual_after=self.path(f"{name}.after"),
        )
        assert isinstance(self.session.train(command, threading.Event(), lambda *_: None), p.Trained)
        return self.read(name)

    def delta(self) -> Tensor:
        """What a training changes, exactly."""
        exact = Bench(self.folder, up="fp32")
        exact.session.train(p.Train(path=self.path("exact"), seed=1), threading.Event(), lambda *_: None)
        return self.read("exact")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, up="topk", ratio=0.1)


def test_what_an_update_leaves_out_is_part_of_the_next(bench: Bench) -> None:
    delta = bench.delta()

    first = bench.train("one")
    second = bench.train("two", seed=2, add=("one.after",))

    assert 0 < first.count_nonzero() < 0.3 * bench.layout.numel
    assert torch.allclose(first + bench.read("one.after"), delta, atol=1e-6)
    assert torch.allclose(second + first + bench.read("two.after"), 2 * delta, atol=1e-6)


def test_the_residual_that_went_in_is_kept_and_costs_no_space(bench: Bench) -> None:
    bench.train("one")
    assert not (bench.folder / "one.before").exists()
    bench.train("two", add=("one.after",))
    assert os.path.samefile(bench.path("two.before"), bench.path("one.after"))


def test_shares_of_refused_updates_are_added_and_taken_back(bench: Bench) -> None:
    for name, add in (("one", ()), ("two", ("one.after",)), ("three", ("two.after",))):
        bench.train(name, add=add)

    bench.train("four", add=("three.after", "two.before"), subtract=("two.after",))

    expected = bench.read("three.after") + bench.read("two.before") - bench.read("two.after")
    assert torch.equal(bench.read("four.before"), expected)


def test_a_residual_that_is_gone_or_damaged_costs_what_it_held_and_not_the_training(bench: Bench) -> None:
    first = bench.train("one")
    (bench.folder / "one.after").write_bytes(b"x" * 100)

    assert torch.equal(bench.train("two", add=("one.after",)), first)
    assert torch.equal(bench.train("three", add=("nothing",)), first)


@pytest.mark.parametrize(("up", "least"), [("int8", 1.0), ("int4", 1.001), ("topk", 1.5)])
def test_what_the_code_left_out_counts_in_the_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: str, least: float
) -> None:
    monkeypatch.setattr(SecantProbe, "measure", lambda *_: (1.0, 0.5))
    task = {"task": "synthetic", "task_config": {"numel": 9000, "tensors": 2}}
    bench, exact = Bench(tmp_path, up=up, ratio=0.1, **task), Bench(tmp_path, up="fp32", **task)
    residual = {"residual_before": bench.path("before"), "residual_after": bench.path("after")} if up == "topk" else {}
    command = p.Train(path=bench.path("sent"), seed=1, **residual)

    trained = bench.session.train(command, threading.Event(), lambda *_: None)

    exact.session.train(p.Train(path=bench.path("exact"), seed=1), threading.Event(), lambda *_: None)
    delta, sent = bench.read("exact"), bench.read("sent")
    whole, left = delta.square().sum().item(), (delta - sent).square().sum().item()
    times = {"int8": 1.0, "int4": 1 + left / whole, "topk": 1 / (1 - left / whole)}[up]
    assert isinstance(trained, p.Trained)
    assert (trained.effort.travel, trained.effort.response) == (1.0, pytest.approx(0.5 * times, rel=1e-4))
    assert times >= least


@pytest.mark.parametrize("up", ["int8", "int4", "topk"])
def test_the_same_update_has_the_same_bytes_whoever_makes_it(tmp_path: Path, up: str) -> None:
    def made(name: str) -> bytes:
        bench = Bench(tmp_path, up=up)
        bench.session.train(p.Train(path=bench.path(name), seed=77), threading.Event(), lambda *_: None)
        return (tmp_path / name).read_bytes()

    assert made("once") == made("again")
