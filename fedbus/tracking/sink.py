"""Where points go: a target such as `tensorboard:DIR`, and the sink of its tool."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from fedbus.errors import SettingsError
from fedbus.tracking.points import Point


class Tool(StrEnum):
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb-offline"


class Sink(Protocol):
    """Of one job. `written` are the points that earlier processes have left there. Raises StoreError."""

    def written(self) -> set[tuple[str, int]]: ...

    def write(self, points: Sequence[Point]) -> None:
        """Hand points over, each once; what a kill loses is not among those `written` the next time."""

    def close(self, state: str | None) -> None:
        """No more points come; `state` in which the job has ended, None: it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a person allows: a tool, and the folder or the address that it writes to."""

    tool: Tool
    place: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """From `tensorboard:DIR`, `mlflow:http://HOST:PORT` or `wandb-offline:DIR`. Raises SettingsError."""
        name, colon, place = text.partition(":")
        if name not in set(Tool) or not colon or not place:
            known = "tensorboard:DIR, mlflow:http://HOST:PORT, wandb-offline:DIR"
            raise SettingsError(f"expected one of {known}; got {text!r}")
        tool = Tool(name)
        if tool is Tool.MLFLOW and not _is_address(place):
            raise SettingsError(
                f"mlflow: expected the address of a tracking server, http(s)://HOST:PORT; got {place!r}"
            )
        package = {Tool.TENSORBOARD: "tensorboard", Tool.MLFLOW: "mlflow", Tool.WANDB: "wandb"}[tool]
        if importlib.util.find_spec(package) is None:
            raise SettingsError(f"{name} is not installed here: pip install 'fedbus[{package}]'")
        return cls(tool=tool, place=place if tool is Tool.MLFLOW else str(Path(place).absolute()))

    def sink(self, job: str, name: str) -> Sink:
        """Open the sink of a job; `name` is the spec's. Raises StoreError."""
        match self.tool:
            case Tool.TENSORBOARD:
                from fedbus.tracking.tensorboard import TensorBoardSink

                return TensorBoardSink(Path(self.place) / job)
            case Tool.MLFLOW:
                from fedbus.tracking.mlflow import MlflowSink

                return MlflowSink(self.place, job, name)
            case Tool.WANDB:
                from fedbus.tracking.wandb import WandbSink

                return WandbSink(Path(self.place), job, name)


def _is_address(place: str) -> bool:
    try:
        parts = urlsplit(place)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
