"""What the hospitals reach alone and pooled, computed by a process of its own: torch stays out of the demo's process.

`python -m fedbus.demo.baselines FILE` writes {local_only: {hospital: auc}, pooled: {hospital: auc}} as JSON.
Same task config, batch size, learning rate and seed as the job; as many steps as versions x local steps, which is how
often the federated model moves on.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from fedbus.broker.process import ProcessId, signals_held, spawn
from fedbus.demo.job import demo_job
from fedbus.errors import FedbusError
from fedbus.local.federation import wait_until

LIMIT = timedelta(seconds=120)
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Aucs = dict[str, dict[str, float]]


class Baselines:
    """The process that computes them; leaving the context ends it. Main thread only."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "baselines.json"
        self._log = folder / "logs" / "baselines.log"

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fedbus.demo.baselines", str(self._file)]
        with signals_held():
            self._process: ProcessId = spawn(
                command, env={**os.environ, **THREADS}, output=self._log, die_with_parent=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end(timedelta(0))

    def result(self) -> Aucs:
        """Wait for the numbers; FedbusError with the process's last words when there are none."""
        wait_until(lambda: not self._process.alive, within=LIMIT, what="the baselines")
        if not self._file.exists():
            raise FedbusError(f"the baselines could not be computed:\n{self._log.read_text(errors='replace')[-2000:]}")
        found: Aucs = json.loads(self._file.read_text())
        return found


def compute() -> Aucs:
    """Train and score both; about two seconds. A hospital whose test patients are all of one class has no AUC."""
    from fedbus.tasks.heart_disease_baselines import local_only, pooled

    spec = demo_job()
    steps = (spec.local.steps or 1) * (spec.stop.versions or 1)
    batch, rate, seed = spec.local.batch_size, spec.local.learning_rate, spec.seed
    scores = {
        "local_only": local_only(steps=steps, batch_size=batch, learning_rate=rate, seed=seed),
        "pooled": pooled(steps=steps, batch_size=batch, learning_rate=rate, seed=seed),
    }
    return {
        how: {hospital: score.metrics["auc"] for hospital, score in found.items() if "auc" in score.metrics}
        for how, found in scores.items()
    }


def main(path: Path) -> None:
    """Write the numbers to `path`, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(compute()))
    part.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
