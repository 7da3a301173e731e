"""Tasks for tests of the trainer; put this folder on PYTHONPATH and they are found by their entry points."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedbus.errors import DataError, TaskError
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, TrainResult


class Stub:
    """A tiny conv net whose training adds `step` to every param at each step, so that every result is known.

    task_config.mode: "" | "error" (train raises) | "nan" | "none" (no examples) | "block" (a step that never yields)
    | "hold" (the same, holding the interpreter's lock) | "numpy" | "tensor" (counts of these types) | "tuple" (answers
    that are none) | "spawn", "spawn-block" (starts processes that outlive it, pids in the file `spawned`; and blocks)
    | "print" (a million lines) | "exit" (evaluate leaves the program) | "trips" (over being cancelled). Those that
    block make the file `in-step` among the data.
    """

    def __init__(self, site: Site) -> None:
        if not site.data.is_dir():
            raise DataError(f"expected a folder at {site.data}")
        config = site.settings(mode="", channels=4, step=0.5)
        self._mode, self._channels, self._step = config["mode"], config["channels"], config["step"]
        self._in_step: Path = site.data / "in-step"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, self._channels, 3), nn.BatchNorm2d(self._channels))

    def train(self, model: nn.Module, run: Run) -> Any:
        if self._mode == "error":
            raise TaskError("the scanner is on fire")
        try:
            self._steps(model, run)
        except BaseException as exc:
            if self._mode == "trips":
                raise RuntimeError("the loader's workers were shut down") from exc
            raise
        other = {"numpy": np.int64(7), "tensor": torch.tensor(7), "tuple": (7, {"loss": 1.0})}
        if self._mode in other:
            return other[self._mode]
        return TrainResult(num_examples=0 if self._mode == "none" else 7, metrics={"odd": float("nan"), "fine": 1.0})

    def _steps(self, model: nn.Module, run: Run) -> None:
        for _ in run.steps(per_epoch=10):
            with torch.no_grad():
                for param in model.parameters():
                    param.add_(float("nan") if self._mode == "nan" else self._step)
            run.report(torch.tensor(1.25))
            self._block()

    def evaluate(self, model: nn.Module) -> Any:
        if self._mode == "error":
            raise ValueError("no slices")
        if self._mode == "exit":
            sys.exit(7)
        if self._mode == "tuple":
            return 0.5, 3, {"mean": 0.5}
        mean = float(torch.cat([param.flatten() for param in model.parameters()]).mean())
        return Scores(metrics={"mean": mean, "auc": float("nan")}, num_examples=3)

    def _block(self) -> None:
        if self._mode.startswith("spawn"):
            _spawn(self._in_step.with_name("spawned"))
        if self._mode == "print":
            sys.stdout.write("".join(f"patient {n}\n" for n in range(1_000_000)))
            warnings.warn("said at last", stacklevel=1)
        if self._mode in ("block", "hold", "spawn-block"):
            self._in_step.touch()
        if self._mode in ("block", "spawn-block"):
            time.sleep(600)
        if self._mode == "hold":
            ctypes.PyDLL(None).sleep(600)


def _spawn(pids: Path) -> None:
    """Start a child, a grandchild whose parent has ended, and a child in a session of its own; and fork one."""
    sleep = "import time; time.sleep(600)"
    orphan = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{sleep}'], stdout=2).pid)"
    started = [subprocess.Popen([sys.executable, "-c", sleep], start_new_session=own).pid for own in (False, True)]
    started.append(int(subprocess.run([sys.executable, "-c", orphan], stdout=-1, check=True).stdout))
    if (forked := os.fork()) == 0:
        time.sleep(600)  # it holds what the trainer holds open, as a worker of a data loader does
        os._exit(0)
    pids.with_suffix(".tmp").write_text(" ".join(map(str, [*started, forked])))
    pids.with_suffix(".tmp").replace(pids)


class NoTask:
    """Lacks everything but a model."""

    def __init__(self, site: Site) -> None:
        pass

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)
