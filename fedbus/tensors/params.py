"""Params: the tensors of a model that travel, by name, and the same as one flat float32 vector.

What lives here: flattening and loading. What may not: which tensors travel (see `sharing`), how a vector is coded or
aggregated. float64 travels as float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import LayoutError


def flatten(state: Mapping[str, object], layout: Layout, out: Tensor | None = None) -> Tensor:
    """Copy what travels of a state dict into one contiguous float32 vector [numel], into `out` when given.

    Without `out` the vector lives where the first tensor lives. Entries that are not in the layout stay at the site.
    Raises LayoutError that names the first tensor which is missing or of another shape or dtype; `out` is then
    unchanged.
    """
    tensors = {s.name: _checked(state, s.name, s.shape, s.dtype) for s in layout.tensors}
    if out is None:
        device = tensors[layout.tensors[0].name].device
        out = torch.empty(layout.numel, dtype=torch.float32, device=device)
    for name, (start, stop) in layout.slices().items():
        out[start:stop].copy_(tensors[name].detach().reshape(-1))
    return out


def unflatten(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Return the params of a flat vector [numel] in the layout's shapes and dtypes; float32 ones are views of it.

    A tensor with several names is there under each of them.
    """
    places = layout.slices()
    cut = ((spec, _cut(flat, spec, *places[spec.name])) for spec in layout.tensors)
    return {name: tensor for spec, tensor in cut for name in spec.names}


def load_params_(state: Mapping[str, object], params: Mapping[str, Tensor]) -> None:
    """Copy params into the tensors of a state dict, by name; what else is in it stays.

    LayoutError, and no change, when one is missing there or of another shape or dtype.
    """
    own = {name: _checked(state, name, tuple(value.shape), _dtype_name(value)) for name, value in params.items()}
    written: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, value in params.items():
            before = written.setdefault(id(value), own[name])
            if before is own[name] or not own[name].is_set_to(before):  # tied: one copy is enough
                own[name].copy_(value)


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _cut(flat: Tensor, spec: TensorSpec, start: int, stop: int) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return flat[start:stop].view(spec.shape).to(dtype)


def _checked(state: Mapping[str, object], name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    found = state.get(name)
    expected = f"{list(shape)} {dtype}"
    if not isinstance(found, Tensor):
        raise LayoutError(f"tensor {name!r} {expected} is missing: the job's model has it")
    if tuple(found.shape) != shape or _dtype_name(found) != dtype:
        raise LayoutError(f"tensor {name!r}: expected {expected}, found {list(found.shape)} {_dtype_name(found)}")
    return found
