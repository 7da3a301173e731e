"""A task that trains at several ranks in ways that are right, and in ways that are not, as the file `mode` says."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import Tensor, nn

from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, TrainResult


class Ranked:
    """23 examples of a small regression; the mode is read at each training, so that one process serves many tests."""

    def __init__(self, site: Site) -> None:
        site.settings(mode="")
        self._folder = site.data
        self._device = site.device
        numbers = torch.Generator().manual_seed(3)
        self._inputs = torch.randn(23, 6, generator=numbers)
        self._targets = torch.randn(23, 1, generator=numbers)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 1), nn.Linear(1, 1))

    def train(self, model: nn.Module, run: Run) -> TrainResult:
        mode = (self._folder / "mode").read_text()
        if mode == "steps":
            return self._own_batches(model, run)
        head = nn.Linear(1, 1) if mode == "head" else nn.Identity()
        optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=run.learning_rate)
        rows = len(self._inputs)
        batches = run.fetched(rows, lambda _, batch: batch) if mode == "fetched" else run.batches(rows)
        for step, batch in enumerate(batches):
            optimizer.zero_grad()
            self._trouble(mode, step, run, model)
            if mode == "early" and run.rank == 1:
                break
            part = model[:-1] if mode == "unused" else model
            self._backward(mode, head(part(self._inputs[batch])), self._targets[batch], model, run)
            if mode == "clip":
                nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
            (self._folder / "stepped").touch()
        return TrainResult(num_examples=len(self._inputs))

    def _backward(self, mode: str, found: Tensor, wanted: Tensor, model: nn.Module, run: Run) -> None:
        loss = nn.functional.mse_loss(found, wanted) + run.proximal(model)
        if mode == "ratio":  # of sums over the batch, as soft Dice is
            shared, total = run.whole(torch.stack([(found * wanted).sum(), (found**2 + wanted**2).sum()]))
            loss = loss - 2 * shared / total
        run.report(loss)
        match mode:
            case "twice":  # of a loss in two parts
                (0.25 * loss).backward(retain_graph=True)
                (0.75 * loss).backward()
            case "by-hand":
                for param, grad in zip(
                    model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
                ):
                    param.grad = grad
            case _:
                loss.backward()
        if mode == "often" and run.rank == 1:
            nn.functional.mse_loss(model(self._inputs[:2]), self._targets[:2]).backward()

    def _own_batches(self, model: nn.Module, run: Run) -> TrainResult:
        """Batches of its own: every rank makes the same, and the model is that of one device."""
        optimizer = torch.optim.SGD(model.parameters(), lr=run.learning_rate)
        for _ in run.steps(per_epoch=5):
            batch = torch.randint(len(self._inputs), (4,))
            optimizer.zero_grad()
            nn.functional.mse_loss(model(self._inputs[batch]), self._targets[batch]).backward()
            optimizer.step()
        return TrainResult(num_examples=4)

    def _trouble(self, mode: str, step: int, run: Run, model: nn.Module) -> None:
        if step == 1 and run.rank == 1:
            match mode:
                case "fail":
                    raise ValueError("patient 4711 has no heart")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "drift":
                    with torch.no_grad():
                        next(model.parameters()).add_(0.1)
        if mode == "slow":
            time.sleep(0.005)

    def evaluate(self, model: nn.Module) -> Scores:
        loss = nn.functional.mse_loss(model(self._inputs), self._targets)
        return Scores(metrics={"loss": float(loss)}, num_examples=len(self._inputs))
