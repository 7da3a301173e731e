"""The formats that a model is written in: what lies in the folder of each, and how it is known to be the model.

    safetensors    model.safetensors: the params by name, nothing of the task
    torchscript    model.pt: network and params, for torch alone
    onnx           model.onnx: the same, for any runtime; needs fedbus[onnx]
    monai-bundle   see `bundle`; needs fedbus[monai]

Every export is read back in a fresh process without fedbus, and its output for the task's example compared.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from fedbus.errors import ExportError
from fedbus.export.read_back import difference, read_back
from fedbus.export.task_model import TaskModel

Format = Literal["safetensors", "monai-bundle", "torchscript", "onnx"]
SAFETENSORS = "model.safetensors"
MOST_IN_ONE_FILE = 1 << 30
"""Bytes of params that an ONNX file, which has at most 2 GiB, holds itself."""


def write_safetensors(params: Path, folder: Path) -> str:
    """Write the params; returns how they were compared, in words."""
    shutil.copyfile(params, folder / SAFETENSORS)
    ours, found = load_file(params), read_back("safetensors", folder / SAFETENSORS, torch.zeros(0))
    if ours.keys() != found.keys() or not all(torch.equal(tensor, found[name]) for name, tensor in ours.items()):
        raise ExportError("safetensors: what is read back is not what was written")
    return f"{len(ours)} tensors read back in a fresh process, each the same to the bit"


def write_torchscript(model: TaskModel, folder: Path) -> str:
    """Write the traced network; returns how it was compared, in words."""
    path, expected = folder / "model.pt", model.outputs()
    with _quiet(), _said("torchscript: the network cannot be traced"):
        torch.jit.save(torch.jit.trace(model.network, (model.example,)), path)  # type: ignore[no-untyped-call]
    return _compared("torchscript", path, model, expected)


def write_onnx(model: TaskModel, folder: Path) -> str:
    """Write the network as ONNX, for batches of any size where it allows; returns how it was compared, in words."""
    path, expected = folder / "model.onnx", model.outputs()
    size = sum(t.numel() * t.element_size() for t in model.network.state_dict().values() if isinstance(t, torch.Tensor))
    with _quiet(), _said("onnx: the network cannot be written"):
        torch.onnx.export(
            model.network,
            (model.example,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.AUTO},),
            external_data=size > MOST_IN_ONE_FILE,
            verbose=False,
        )
    return _compared("onnx", path, model, expected)


def _compared(kind: str, path: Path, model: TaskModel, expected: torch.Tensor) -> str:
    found = read_back(kind, path, model.example)
    largest = difference(found.get("output"), expected, kind)
    return f"read back in a fresh process without fedbus; its output for an example differs by at most {largest:.3g}"


@contextmanager
def _quiet() -> Iterator[None]:
    """What exporters tell their own developers is no news for who exports."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _said(what: str) -> Iterator[None]:
    """An exporter may raise anything: it runs the network's own code."""
    try:
        yield
    except Exception as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ExportError(f"{what}: {lines[0][:300]}") from exc


def needs(module: str, extra: str) -> Any:
    """Import a package of an extra. Raises ExportError with the command that installs it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ExportError(f"{module} is not installed here: pip install 'fedbus[{extra}]'") from exc
