"""A version of a job in one of the `formats`, with its model card, in a folder that is there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import torch

from fedbus.core.protocol.answers import JobDetail
from fedbus.export import formats
from fedbus.export.bundle import write_bundle
from fedbus.export.card import CARD, card_of, write_card
from fedbus.export.folder import whole_folder
from fedbus.export.task_model import task_model


def export(detail: JobDetail, *, version: int, params: Path, kind: formats.Format, to: Path) -> dict[str, Any]:
    """Write an export to the folder `to` and return its card.

    params: the safetensors file with the version. Raises ExportError, TaskError or StoreError, and then leaves nothing.
    """
    torch.set_num_threads(1)
    card = card_of(detail, version=version, params=params, kind=kind)
    with whole_folder(to) as folder:
        card["verified"] = _write(card, params, kind, folder)
        write_card(card, folder / "docs" if kind == "monai-bundle" else folder)
        if kind == "monai-bundle":
            shutil.copyfile(folder / "docs" / CARD, folder / "docs" / "README.md")  # as bundles name it
    return card


def _write(card: Mapping[str, Any], params: Path, kind: formats.Format, folder: Path) -> str:
    if kind == "safetensors":
        return formats.write_safetensors(params, folder)
    if kind == "onnx":
        for module in ("onnx", "onnxscript"):
            formats.needs(module, "onnx")
    model = task_model(str(card["task"]), card["task_config"], params)
    match kind:
        case "torchscript":
            return formats.write_torchscript(model, folder)
        case "onnx":
            return formats.write_onnx(model, folder)
        case "monai-bundle":
            return write_bundle(model, card["task_config"], folder, card=card)
        case _:
            assert_never(kind)
