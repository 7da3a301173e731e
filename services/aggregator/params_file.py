"""Params of a model as a safetensors file, by name: what a job may start from and what it leaves behind.

Piece by piece between the file and the flat vector, whatever the dtypes: no second copy of the model, not even mapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedbus.core.layout import Layout, TensorSpec
from fedbus.errors import LayoutError
from fedbus.store.files import replace_durably, replace_soon
from fedbus.store.tensor_file import TensorFile, TensorSource, write_tensors
from fedbus.tensors.tiles import tiles

_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPES = {stored: name for name, stored in _NAMES.items()}
_COUNTERS_AND_MASKS = ("I", "U", "BOOL")


def read_params(path: Path) -> tuple[Layout, Tensor]:
    """The layout of a file's floating tensors, and those as one float32 vector; counters and masks are left out.

    Raises StoreError when the file cannot be read, LayoutError when what it holds cannot be trained together.
    """
    with TensorFile.open(path) as file:
        stored = {n: t for n, t in file.tensors.items() if not t.dtype.startswith(_COUNTERS_AND_MASKS)}
        if not stored:
            raise LayoutError(f"{path} holds no floating tensor: nothing would be trained together")
        layout = Layout.of(
            TensorSpec(name=name, shape=tensor.shape, dtype=_DTYPES.get(tensor.dtype, tensor.dtype))
            for name, tensor in stored.items()
        )
        flat = torch.empty(layout.numel)
        places = layout.slices()
        for spec in layout.tensors:
            start, stop = places[spec.name]
            _read_into_(flat[start:stop], file, spec)
    return layout, flat


def write_params(
    path: Path, flat: Tensor, layout: Layout, metadata: Mapping[str, str], *, durably: bool = True
) -> None:
    """Write the vector's tensors, in the layout's dtypes; StoreError when that fails. See `store.files` for durably."""
    places = layout.slices()
    sources = {
        spec.name: TensorSource(
            dtype=_NAMES[spec.dtype], shape=spec.shape, pieces=_pieces(flat[slice(*places[spec.name])], spec)
        )
        for spec in layout.tensors
    }
    with (replace_durably if durably else replace_soon)(path) as beside:
        write_tensors(beside, sources, metadata)


def _read_into_(part: Tensor, file: TensorFile, spec: TensorSpec) -> None:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    at = 0
    for piece in file.pieces(spec.name):
        values = torch.frombuffer(piece, dtype=dtype)
        part[at : at + values.numel()].copy_(values)
        at += values.numel()


def _pieces(part: Tensor, spec: TensorSpec) -> Iterator[memoryview]:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    for (tile,) in tiles(part):
        yield tile.to(dtype).view(torch.uint8).numpy().data
