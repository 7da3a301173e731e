"""The network of a job with a version's params in it, where no data of a site are: what the exports are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fedbus.errors import TaskError
from fedbus.tensors.sharing import EXTRA_STATE
from fedbus.training.registry import load_task

SHOWN = 3
SAFETENSORS_ONLY = "`--format safetensors` needs nothing of the task"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskModel:
    """A network in evaluation mode, and what it takes: two examples, [2, ...]. `task`: the class that made them."""

    task: Any
    network: nn.Module
    example: Tensor

    def outputs(self) -> Tensor:
        """What the network makes of the example; TaskError unless that is one tensor of finite numbers."""
        with torch.no_grad():
            found = self.network(self.example)
        if not isinstance(found, Tensor) or not bool(torch.isfinite(found).all()):
            what = "NaN or infinite values" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise TaskError(f"the network's output for the example is {what}: expected one tensor of finite numbers")
        return found


def task_model(name: str, config: Mapping[str, Any], params: Path) -> TaskModel:
    """Make a task's network from a job's task_config and put the params of a safetensors file into it.

    Raises TaskError when the task is not installed, cannot be made without data, or makes another network than that of
    the file; LayoutError has no part in it, for the file is whole.
    """
    task = load_task(name)
    lacking = [part for part in ("network", "example_input") if not callable(getattr(task, part, None))]
    if lacking:
        raise TaskError(
            f"task {name!r} cannot be exported where there are no data: its class has no {' and no '.join(lacking)}, "
            f"see fedbus.training.task.Exportable; {SAFETENSORS_ONLY}"
        )
    network = task.network(config)
    load_whole_(network, load_file(params))
    return TaskModel(task=task, network=network.eval(), example=task.example_input(config))


def load_whole_(network: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Give a network all its params. TaskError when some are missing or fit nothing: it would be another model."""
    own = network.state_dict()
    floats = {n: t for n, t in own.items() if isinstance(t, Tensor) and t.is_floating_point()}
    if missing := sorted(floats.keys() - params.keys()):
        raise TaskError(
            f"the job's model lacks {_some(missing)} of the task's network: tensors that a job keeps at its sites are "
            f"there and nowhere else; {SAFETENSORS_ONLY}"
        )
    if unknown := sorted(n for n in params.keys() - own.keys() if n.rpartition(".")[2] != EXTRA_STATE):
        raise TaskError(f"the job's model has {_some(unknown)}, the task installed here makes no such tensor")
    for name, tensor in params.items():
        if own[name].shape != tensor.shape:
            shapes = f"{list(tensor.shape)}, that of the task installed here {list(own[name].shape)}"
            raise TaskError(f"{name} of the job's model is {shapes}: install the task's release that the sites have")
    with torch.no_grad():
        for name, tensor in params.items():
            own[name].copy_(tensor)


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
