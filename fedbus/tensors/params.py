"""Params: the floating tensors of a model, by name, and the same as one flat float32 vector.

What lives here: which entries of a state dict travel and as what, reading, flattening and loading them. What may not:
how a vector is coded or aggregated.

    entry of a state dict                      what happens to it
    parameter with requires_grad               learnt: its delta travels
    parameter without, floating                frozen: its value travels when training changed it (an EMA teacher)
    buffer, floating                           the same: running mean and variance, scales
    several names of one tensor (tied)         travels once, under the name that is first by alphabet
    integer, bool, quantized                   stays at the site: counters, masks
    no tensor (`get_extra_state`)              stays at the site
    named by the job's `keep`                  stays at the site, whatever it is (FedBN, arXiv 2102.07623: `batch_norm`)

float64 travels as float32. What cannot travel, complex or sparse or not yet made, is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from fedbus.core.protocol.layout import Kind, Layout, TensorSpec
from fedbus.errors import LayoutError

KEEP_BATCH_NORM, KEEP_BUFFERS = "batch_norm", "buffers"
"""Words of a job's `keep` that are no patterns: all of batch normalisation, affine params too; and all buffers."""
EXTRA_STATE = "_extra_state"


def layout_of(model: nn.Module, *, keep: Sequence[str] = ()) -> Layout:
    """Return the layout of what travels of a model. LayoutError when nothing does, or names what cannot."""
    travelling = _travelling(model, keep)
    if not travelling:
        raise LayoutError("the model holds no floating tensor that travels: nothing would be trained together")
    return Layout.of(_shared_once(travelling, _kinds(model)))


def staying(model: nn.Module, *, keep: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors that stay at the site, by name: views of the model's own."""
    away = _travelling(model, keep).keys()
    return {name: value for name, value in _tensors(model) if name not in away}


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


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The entries of the state dict that are tensors of the model itself."""
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and name.rpartition(".")[2] != EXTRA_STATE:
            yield name, value


def _travelling(model: nn.Module, keep: Sequence[str]) -> dict[str, Tensor]:
    """The floating tensors of the state dict, less those that the job keeps at the sites."""
    floating = {name: value for name, value in _tensors(model) if _is_floating(value)}
    kept = _kept(model, floating, keep)
    together = _identities(floating)
    kept_storages = {together[name] for name in kept}
    found = {name: value for name, value in floating.items() if together[name] not in kept_storages}
    for name, value in found.items():
        _check_can_travel(name, value)
    return found


def _kept(model: nn.Module, floating: Mapping[str, Tensor], keep: Sequence[str]) -> set[str]:
    kept: set[str] = set()
    for pattern in keep:
        matched = set(_matched(model, floating, pattern))
        if not matched:
            some = ", ".join(list(floating)[:8]) + (", ..." if len(floating) > 8 else "")
            raise LayoutError(f"keep: {pattern!r} matches no tensor of the model; correct the job; it has {some}")
        kept |= matched
    return kept


def _matched(model: nn.Module, floating: Mapping[str, Tensor], pattern: str) -> Iterator[str]:
    match pattern:
        case "batch_norm":
            modules = (name for name, module in model.named_modules() if isinstance(module, _BatchNorm))
            prefixes = tuple(f"{name}." if name else "" for name in modules)
            yield from (name for name in floating if name.startswith(prefixes)) if prefixes else ()
        case "buffers":
            parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            yield from (name for name in floating if name not in parameters)
        case _:
            yield from (name for name in floating if fnmatchcase(name, pattern))


def _kinds(model: nn.Module) -> dict[object, Kind]:
    """What each parameter is, by identity: a state dict may know it under another name."""
    named = dict(model.named_parameters(remove_duplicate=False))
    identities = _identities({name: param for name, param in named.items() if not is_lazy(param)})
    kinds: dict[object, Kind] = {}
    for name, identity in identities.items():
        learnt = named[name].requires_grad or kinds.get(identity) is Kind.LEARNT
        kinds[identity] = Kind.LEARNT if learnt else Kind.FROZEN
    return kinds


def _shared_once(tensors: Mapping[str, Tensor], kinds: Mapping[object, Kind]) -> Iterator[TensorSpec]:
    names: dict[object, list[str]] = {}
    for name, identity in _identities(tensors).items():
        names.setdefault(identity, []).append(name)
    for identity, shared in names.items():
        first, *aliases = sorted(shared)
        tensor = tensors[first]
        yield TensorSpec(
            name=first,
            shape=tuple(tensor.shape),
            dtype=_dtype_name(tensor),
            kind=kinds.get(identity, Kind.BUFFER),
            aliases=tuple(aliases),
        )


def _identities(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """What tells one tensor from another: tensors with equal ones are one, under several names."""
    return {name: _identity(name, tensor) for name, tensor in tensors.items()}


def _identity(name: str, tensor: Tensor) -> object:
    if is_lazy(tensor) or tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return name
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _is_floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _check_can_travel(name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        problem, what_to_do = "has no shape yet (a lazy module)", "run one batch through the model in model()"
    elif tensor.is_meta:
        problem, what_to_do = "is on the meta device and holds nothing", "make the model with its params in model()"
    elif tensor.layout is not torch.strided:
        problem, what_to_do = f"is {tensor.layout}", "make it dense in model()"
    else:
        return
    raise LayoutError(f"tensor {name!r} {problem}: {what_to_do}, or name it under `keep` so that it stays at the site")


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
