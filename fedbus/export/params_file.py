"""Params of a model as a safetensors file, by name: what a job may start from and what it leaves behind.

Piece by piece between the file and the flat vector, whatever the dtypes: no second copy of the model, not even mapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import LayoutError, StoreError
from fedbus.store.files import replace_durably, replace_soon
from fedbus.store.tensor_file import StoredTensor, TensorFile, TensorSource, write_tensors
from fedbus.tensors.sharing import EXTRA_STATE
from fedbus.tensors.tiles import tiles

STORED_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPES = {stored: name for name, stored in STORED_DTYPES.items()}
_COUNTERS_AND_MASKS = ("I", "U", "BOOL")
_WRAPPERS = {
    "module.": "it was saved from a model in DataParallel: save model.module.state_dict()",
    "_orig_mod.": "it was saved from a compiled model: save model._orig_mod.state_dict()",
}
SHOWN = 3


def check_readable(path: Path) -> None:
    """Raise StoreError unless this is a safetensors file, whole: before a site is asked for its layout."""
    with TensorFile.open(path):
        pass


def read_params(path: Path, layout: Layout, *, extra: bool = False, into: Tensor | None = None) -> Tensor:
    """What a layout asks for out of a file, by any of its tensors' names, as one float32 vector [numel].

    into: such a vector to be filled, which is then returned; None: a new one is made.

    Counters and masks of the file are passed over; other tensors only when `extra` ones are allowed, for a job may keep
    some at the sites. Raises StoreError when the file cannot be read, LayoutError when it is of another model: it says
    which tensors, and what to do.
    """
    with TensorFile.open(path) as file:
        found = _names(file, layout)
        _check_names(path, file, layout, found, extra=extra)
        flat, places = torch.empty(layout.numel) if into is None else into, layout.slices()
        for spec in layout.tensors:
            start, stop = places[spec.name]
            _read_into_(flat[start:stop], file, found[spec.name] or "")
    return flat


def check_fits(path: Path, layout: Layout) -> None:
    """Raise LayoutError unless `read_params` finds in a file what a layout asks for; no params are read."""
    try:
        with TensorFile.open(path) as file:
            _check_names(path, file, layout, _names(file, layout), extra=False)
    except StoreError as exc:
        raise LayoutError(str(exc)) from exc


def write_params(
    path: Path, flat: Tensor, layout: Layout, metadata: Mapping[str, str], *, durably: bool = True
) -> None:
    """Write the vector's tensors, in the layout's dtypes, under all their names; StoreError when that fails.

    See `store.files` for durably.
    """
    places = layout.slices()
    sources = {
        name: TensorSource(
            dtype=STORED_DTYPES[spec.dtype], shape=spec.shape, pieces=_pieces(flat[slice(*places[spec.name])], spec)
        )
        for spec in layout.tensors
        for name in spec.names
    }
    with (replace_durably if durably else replace_soon)(path) as beside:
        write_tensors(beside, sources, metadata)


def _names(file: TensorFile, layout: Layout) -> dict[str, str | None]:
    """The name under which the file has each tensor of a layout; None: it has it not."""
    return {spec.name: next((n for n in spec.names if n in file.tensors), None) for spec in layout.tensors}


def _check_names(path: Path, file: TensorFile, layout: Layout, found: Mapping[str, str | None], *, extra: bool) -> None:
    missing = [name for name, stored in found.items() if stored is None]
    if missing:
        raise LayoutError(f"{path} lacks {_some(missing)}, which the task's model has{_hint(file, missing)}")
    for spec in layout.tensors:
        stored = file.tensors[found[spec.name] or ""]
        if stored.shape != spec.shape or stored.dtype not in _DTYPES:
            raise LayoutError(
                f"{path}: {spec.name} is {stored.dtype} {list(stored.shape)}, the task's model has {spec.dtype} "
                f"{list(spec.shape)}: is it of another network, or another number of classes?"
            )
    known = {name for spec in layout.tensors for name in spec.names}
    more = [name for name, tensor in file.tensors.items() if name not in known and not _stays(name, tensor)]
    if more and not extra:
        raise LayoutError(f"{path} has {_some(more)} beside what the task's model has: is it of another network?")


def _stays(name: str, tensor: StoredTensor) -> bool:
    """Whether it is of a kind that stays at the sites: see `fedbus.tensors.sharing`."""
    return tensor.dtype.startswith(_COUNTERS_AND_MASKS) or name.rpartition(".")[2] == EXTRA_STATE


def _hint(file: TensorFile, missing: Sequence[str]) -> str:
    """Why the names may differ, when they differ by what wraps a model."""
    for prefix, words in _WRAPPERS.items():
        if all(f"{prefix}{name}" in file.tensors for name in missing):
            return f"; its names begin with {prefix!r}: {words}"
        if all(name.removeprefix(prefix) in file.tensors for name in missing):
            return f"; they are there without {prefix!r}: let the task's model() return the model without its wrapper"
    return f"; it has {_some(list(file.tensors))}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _read_into_(part: Tensor, file: TensorFile, name: str) -> None:
    dtype: torch.dtype = getattr(torch, _DTYPES[file.tensors[name].dtype])
    at = 0
    for piece in file.pieces(name):
        values = torch.frombuffer(piece, dtype=dtype)
        part[at : at + values.numel()].copy_(values)
        at += values.numel()


def _pieces(part: Tensor, spec: TensorSpec) -> Iterator[memoryview]:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    for (tile,) in tiles(part):
        yield tile.to(dtype).view(torch.uint8).numpy().data
