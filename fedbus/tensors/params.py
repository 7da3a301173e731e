"""Params: the floating tensors of a state dict, by name, and the same as one flat float32 vector.

What lives here: reading, flattening and loading params. What may not: how a vector is coded or aggregated.
Integer and bool buffers (counters, masks) never travel: they stay what they are at each site. float64 params travel as
float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedbus.core.layout import Layout, TensorSpec
from fedbus.errors import LayoutError


def layout_of(params: Mapping[str, Tensor]) -> Layout:
    """Return the layout of the floating tensors of `params`; LayoutError when there is none or a dtype is unknown."""
    floating = {name: tensor for name, tensor in params.items() if _travels(tensor)}
    if not floating:
        raise LayoutError("the params hold no floating tensor: nothing would be trained together")
    return Layout.of(_spec_of(name, tensor) for name, tensor in floating.items())


def flatten(params: Mapping[str, Tensor], layout: Layout, out: Tensor | None = None) -> Tensor:
    """Copy params into one contiguous float32 vector [numel], into `out` when given.

    Without `out` the vector lives where the first tensor lives. Raises LayoutError that names the first tensor which is
    missing, unknown or of another shape or dtype; `out` is then unchanged.
    """
    _check_params(params, layout)
    if out is None:
        device = params[layout.tensors[0].name].device
        out = torch.empty(layout.numel, dtype=torch.float32, device=device)
    for name, (start, stop) in layout.slices().items():
        out[start:stop].copy_(params[name].detach().reshape(-1))
    return out


def unflatten(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Return the params of a flat vector [numel] in the layout's shapes and dtypes; float32 ones are views of it."""
    places = layout.slices()
    return {spec.name: _cut(flat, spec, *places[spec.name]) for spec in layout.tensors}


def load_params_(module: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Copy params into the module's own; its integer buffers stay. LayoutError, and no change, when they differ."""
    state = module.state_dict()
    _check_params(params, layout_of(state))
    with torch.no_grad():
        for name, tensor in state.items():
            if _travels(tensor):
                tensor.copy_(params[name])


def _travels(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _spec_of(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name=name, shape=tuple(tensor.shape), dtype=_dtype_name(tensor))


def _cut(flat: Tensor, spec: TensorSpec, start: int, stop: int) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return flat[start:stop].view(spec.shape).to(dtype)


def _check_params(params: Mapping[str, Tensor], layout: Layout) -> None:
    expected = {spec.name: spec for spec in layout.tensors}
    for name, spec in expected.items():
        if name not in params:
            raise LayoutError(f"tensor {name!r} {list(spec.shape)} {spec.dtype} is missing: the job's model has it")
        found = _spec_of(name, params[name])
        if found != spec:
            raise LayoutError(
                f"tensor {name!r}: expected {list(spec.shape)} {spec.dtype}, found {list(found.shape)} {found.dtype}"
            )
    for name, tensor in params.items():
        if _travels(tensor) and name not in expected:
            found_shape = list(tensor.shape)
            raise LayoutError(f"tensor {name!r} {found_shape} {_dtype_name(tensor)} is not part of the job's model")
