"""A model as a MONAI bundle, which monai.bundle and MONAI Label load.

configs/metadata.json    versions, what goes in and comes out, and under `federation` the model card's numbers
configs/inference.json   from a folder of images to segmentations: `python -m monai.bundle run`
models/model.pt          a bare state dict: of any other form monai.bundle.load takes nothing, without a word
docs/README.md, LICENSE
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbus.errors import ExportError
from fedbus.export.formats import needs
from fedbus.export.read_back import difference, read_back
from fedbus.export.task_model import SAFETENSORS_ONLY, TaskModel
from fedbus.training.bundle import BundleParts

LICENSE = """The licence of this model is for those to state whose data it was trained on: put their text here.
The configuration files were written by fedbus, Apache License 2.0.
"""


def write_bundle(model: TaskModel, config: Mapping[str, Any], folder: Path, *, card: Mapping[str, Any]) -> str:
    """Write the bundle into a folder of the model's name; returns how it was compared, in words."""
    monai = needs("monai", "monai")
    make = getattr(model.task, "bundle", None)
    if not callable(make):
        raise ExportError(f"task {card['task']!r} has no bundle(): it is no MONAI network; {SAFETENSORS_ONLY}")
    parts: BundleParts = make(config)
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    state = {name: t.detach().cpu() for name, t in model.network.state_dict().items() if isinstance(t, Tensor)}
    torch.save(state, folder / "models" / "model.pt")
    _write_json(folder / "configs" / "inference.json", _inference(parts))
    _write_json(folder / "configs" / "metadata.json", _metadata(parts, card, monai_version=monai.__version__))
    (folder / "LICENSE").write_text(LICENSE)
    return compared(state, model.outputs(), read_back("monai-bundle", folder, model.example))


def compared(state: Mapping[str, Tensor], expected: Tensor, found: Mapping[str, Tensor]) -> str:
    """Compare what MONAI has loaded with the model, in words. Raises ExportError when something differs."""
    for name, tensor in state.items():
        if (other := found.get(f"params.{name}")) is None or not torch.equal(other, tensor):
            raise ExportError(f"monai-bundle: {name} is not loaded as it is in the model")
    largest = difference(found.get("output"), expected, "monai-bundle")
    return (
        f"{len(state)} tensors loaded by monai.bundle in a fresh process without fedbus, each the same to the bit; the "
        f"output for an example differs by at most {largest:.3g}"
    )


def _metadata(parts: BundleParts, card: Mapping[str, Any], *, monai_version: str) -> dict[str, Any]:
    names = {"0": "background", **{str(value): name for value, name in sorted(parts.labels.items())}}
    image = {
        "type": "image",
        "modality": parts.modality,
        "spatial_shape": list(parts.spatial_shape),
        "dtype": "float32",
        "is_patch_data": False,
    }
    goes_in = {"format": "magnitude", "num_channels": parts.in_channels, "value_range": []}
    channels = {str(i): f"image {i}" if i else "image" for i in range(parts.in_channels)}
    comes_out = {"format": "segmentation", "num_channels": len(names), "value_range": [0, len(names) - 1]}
    return {
        "version": f"0.0.{card['version']}",
        "changelog": {f"0.0.{card['version']}": f"version {card['version']} of {card['job']}"},
        "monai_version": monai_version,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "name": card["job"],
        "task": f"segmentation, trained by the task {card['task']} of a federation",
        "description": f"version {card['version']} of the federated job {card['job']}",
        "authors": "",
        "copyright": "",
        "network_data_format": {
            "inputs": {"image": {**image, **goes_in, "channel_def": channels}},
            "outputs": {"pred": {**image, **comes_out, "channel_def": names}},
        },
        "federation": {name: card[name] for name in ("job", "version", "params", "provenance", "privacy")},
    }


def _inference(parts: BundleParts) -> dict[str, Any]:
    after = [
        _of(
            "Invertd", keys="pred", transform="@preprocessing", orig_keys="image", nearest_interp=False, to_tensor=True
        ),
        _of("AsDiscreted", keys="pred", argmax=True),
        _of("SaveImaged", keys="pred", output_dir="@output_dir"),
    ]
    load = {"load_path": "$@bundle_root + '/models/model.pt'", "load_dict": {"model": "@network"}}
    evaluator = {
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    }
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": ".",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "network_def": dict(parts.network),
        "network": "$@network_def.to(@device)",
        "preprocessing": _of("Compose", transforms=[dict(one) for one in parts.preprocessing]),
        "dataset": _of("Dataset", data="$[{'image': i} for i in @datalist]", transform="@preprocessing"),
        "dataloader": _of("DataLoader", dataset="@dataset", batch_size=1),
        "inferer": dict(parts.inferer),
        "postprocessing": _of("Compose", transforms=after),
        "handlers": [_of("CheckpointLoader", **load)],
        "evaluator": _of("SupervisedEvaluator", **evaluator),
        "run": ["$@evaluator.run()"],
    }


def _of(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
