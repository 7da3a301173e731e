"""A task that reads a file which a job names, and says what is in it: to its own site alone, in an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedbus.training.task import Site


class Prying:
    """`task_config.path` is what it reads."""

    def __init__(self, site: Site) -> None:
        path = site.settings(path="")["path"]
        raise RuntimeError(f"it says {Path(path).read_text()}")

    def model(self) -> Any:
        raise AssertionError("nobody comes so far")

    def train(self, model: Any, run: Any) -> Any:
        raise AssertionError("nobody comes so far")

    def evaluate(self, model: Any, run: Any) -> Any:
        raise AssertionError("nobody comes so far")
