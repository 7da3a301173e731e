"""Params: the tensors of a model that travel, by name, and the same as one flat float32 vector.

What lives here: flattening and loading. What may not: which tensors travel (see `sharing`), how a vector is coded or
aggregated. float64 travels as float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import LayoutError


def flatten(state: Mapping[str, object], layout: Layout, out: Tensor | None = None) -> Tensor:
    """Copy what travels of a state dict into one contiguous float32 vector [numel], into `out` when given.

    Without `out` the vector lives where the first tensor lives. Entries that are not in the layout stay at the site.
    Raises LayoutError that names the first tensor which is missing or of another shape or dtype; `out` is then
    unchanged.
    """
    tensors = {spec.name: _checked(state, spec) for spec in layout.tensors}
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


def load_params_(module: nn.Module, params: Mapping[str, Tensor], layout: Layout) -> None:
    """Copy params, as `unflatten` returns them, into the module's own; what is not in the layout stays.

    LayoutError, and no change, when the module's differ.
    """
    state = module.state_dict()
    own = {spec.name: _checked(state, spec) for spec in layout.tensors}
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(params[name])


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _cut(flat: Tensor, spec: TensorSpec, start: int, stop: int) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return flat[start:stop].view(spec.shape).to(dtype)


def _checked(state: Mapping[str, object], spec: TensorSpec) -> Tensor:
    """The tensor that a spec means."""
    found = state.get(spec.name)
    expected = f"{list(spec.shape)} {spec.dtype}"
    if not isinstance(found, Tensor):
        raise LayoutError(f"tensor {spec.name!r} {expected} is missing: the job's model has it")
    if tuple(found.shape) != spec.shape or _dtype_name(found) != spec.dtype:
        raise LayoutError(f"tensor {spec.name!r}: expected {expected}, found {list(found.shape)} {_dtype_name(found)}")
    return found
