"""A session drives whatever is a program: here one that holds a plain dict of tensors and no torch module."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedbus.core.protocol.layout import Kind, Layout
from fedbus.core.protocol.statistics import ClassLoss
from fedbus.errors import LayoutError
from fedbus.tensors.codec import decode_change_
from fedbus.tensors.digest import digest
from fedbus.tensors.params import load_params_
from fedbus.tensors.sharing import Inventory
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from fedbus.training.run import Run
from fedbus.training.session import Session
from fedbus.training.task import Scores, TrainResult

KINDS = {"coef": Kind.LEARNT, "intercept": Kind.LEARNT, "scale": Kind.BUFFER, "calls": Kind.BUFFER}


class Regression:
    """Adds 1 to all that it holds at every step, and gives out copies: nobody writes to its tensors but itself."""

    def __init__(self) -> None:
        self._held = self._made()
        self._frozen: frozenset[str] = frozenset()

    def _made(self) -> dict[str, Tensor]:
        return {
            "coef": torch.tensor([1.0, 2.0, 3.0]),
            "intercept": torch.zeros(1),
            "scale": torch.ones(3),
            "calls": torch.zeros((), dtype=torch.int64),
        }

    def inventory(self) -> Inventory:
        return Inventory(tensors={name: tensor.clone() for name, tensor in self._held.items()}, kinds=KINDS)

    def freeze(self, names: frozenset[str]) -> None:
        self._frozen = names

    def fresh(self) -> Mapping[str, object]:
        return self._made()

    def load(self, params: Mapping[str, Tensor]) -> None:
        load_params_(self._held, params)

    def params(self) -> Mapping[str, object]:
        return {name: tensor.clone() for name, tensor in self._held.items()}

    def train(self, run: Run) -> TrainResult | int:
        for _ in run.steps(per_epoch=1):
            for name in self._held.keys() - self._frozen:
                self._held[name].add_(1)
        return TrainResult(num_examples=30, metrics={"mse": 0.5, "patient": 1.0})

    def evaluate(self) -> Scores:
        return Scores(metrics={"mse": float(self._held["coef"].sum())}, num_examples=3)

    def class_losses(self) -> Mapping[str, ClassLoss]:
        return {"0": ClassLoss(examples=12, mean=0.123456, variance=0.5), "1": ClassLoss(examples=3, mean=4.0)}

    def may_leave(self, metric: str) -> bool:
        return metric == "mse"


class Site:
    """A session around such a program, which holds version 0 of its own params."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        local = {"steps": 2, "batch_size": 1, "learning_rate": 0.1}
        opening = p.Open(
            job="job",
            task="regression",
            task_config={},
            seed=5,
            site="site-a",
            data=str(folder),
            local=local,
            up="fp32",
            chunk_bytes=1 << 20,
            device="cpu",
            kept=str(folder / "kept" / "job.safetensors"),
            **options,
        )
        self.program = Regression()
        self.session = Session(opening, lambda opening, device: self.program)
        made = self.session.make_initial(p.MakeInitial(path=str(folder / "v0")))
        self.layout = Layout.from_dict(made.layout)
        load = p.Load(
            version=0, digest=digest(self.flat("v0")), snapshot=str(folder / "v0"), layout=self.layout.to_dict()
        )
        assert self.session.load(load) == p.Loaded(version=0)

    def flat(self, name: str) -> Tensor:
        flat = torch.zeros(self.layout.numel)
        decode_change_(flat, read_frames(self.folder / name), self.layout)
        return flat

    def train(self) -> p.Trained:
        trained = self.session.train(
            p.Train(path=str(self.folder / "update"), seed=1), threading.Event(), lambda *_: None
        )
        assert isinstance(trained, p.Trained)
        return trained

    def update(self) -> dict[str, list[float]]:
        """What a training brings, by name."""
        self.train()
        flat = self.flat("update")
        return {name: flat[start:stop].tolist() for name, (start, stop) in self.layout.slices().items()}


def test_what_it_has_learnt_travels_as_a_difference_and_its_counters_stay(tmp_path: Path) -> None:
    site = Site(tmp_path)

    assert site.update() == {"scale": [3.0] * 3, "intercept": [2.0], "coef": [2.0] * 3}
    assert site.update() == {"scale": [3.0] * 3, "intercept": [2.0], "coef": [2.0] * 3}  # from the same version


def test_examples_and_metrics_pass_as_those_of_a_task(tmp_path: Path) -> None:
    site = Site(tmp_path)

    effort = site.train().effort

    assert (effort.num_examples, effort.steps, effort.metrics) == (30, 2, {"mse": 0.5})
    scored = site.session.score(p.Score(version=0))
    assert (scored.metrics, scored.num_examples) == ({"mse": 6.0}, 3)


def test_its_fresh_params_are_the_initial_ones_also_after_a_training(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.train()

    site.session.make_initial(p.MakeInitial(path=str(tmp_path / "again")))

    assert torch.equal(site.flat("again"), site.flat("v0"))


def test_what_a_job_keeps_here_is_given_back_to_the_next_trainer(tmp_path: Path) -> None:
    site = Site(tmp_path, travel=("coef",))
    site.train()
    site.train()

    again = Site(tmp_path, travel=("coef",))

    assert again.update() == {"coef": [2.0] * 3}
    assert again.program.params()["intercept"] == torch.tensor([6.0])
    assert again.program.params()["calls"] == 6


def test_what_a_job_has_frozen_is_not_trained(tmp_path: Path) -> None:
    site = Site(tmp_path, frozen=("intercept",))

    assert site.update()["intercept"] == [0.0]
    assert site.program.params()["intercept"] == torch.zeros(1)


def test_params_of_another_shape_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path)
    other = Layout.of([spec for spec in site.layout.tensors if spec.name != "intercept"])

    with pytest.raises(LayoutError, match="this site's task makes intercept"):
        site.session.load(p.Load(version=0, digest="0" * 16, snapshot=str(tmp_path / "v0"), layout=other.to_dict()))
