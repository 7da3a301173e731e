"""Which tensors of a model travel, which are frozen and which stay at the site, as a job's three lists say.

    travel   when given, only these travel; all others stay at the site
    keep     these stay at the site, whatever they are (FedBN, arXiv 2102.07623: `batch_norm`)
    frozen   these come with the first params to every site, and are then neither trained nor sent

An entry is a pattern such as "head.*", or a word: `batch_norm` (all of batch normalisation, affine params too) or
`buffers`. What none of them names is treated by what it is:

    entry of a state dict                      what happens to it
    parameter with requires_grad               learnt: its delta travels
    parameter without, floating                frozen: its value travels when training changed it (an EMA teacher)
    buffer, floating                           the same: running mean and variance, scales
    several names of one tensor (tied)         travels once, under the name that is first by alphabet
    integer, bool, quantized                   stays at the site: counters, masks
    no tensor (`get_extra_state`)              stays at the site

What cannot travel, complex or sparse or not yet made, is refused by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from fedbus.core.protocol.layout import Kind, Layout, TensorSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import LayoutError

EXTRA_STATE = "_extra_state"
NEAREST, SHOWN = 3, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The lists of a job; empty ones say nothing."""

    travel: Sequence[str] = ()
    keep: Sequence[str] = ()
    frozen: Sequence[str] = ()

    @classmethod
    def of(cls, spec: TrainingSpec) -> Sharing:
        return cls(travel=spec.travel, keep=spec.keep, frozen=spec.frozen)

    @property
    def lists(self) -> dict[str, Sequence[str]]:
        """By the key of the job."""
        return {"travel": self.travel, "keep": self.keep, "frozen": self.frozen}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The tensors that a model holds, by name: views of its own or copies.

    kinds: what each is, by the same names. batch_norm: names of those that belong to batch normalisation.
    """

    tensors: Mapping[str, Tensor]
    kinds: Mapping[str, Kind]
    batch_norm: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What becomes of a model's tensors in a job.

    layout: of what travels. own: names of those that stay at the site and outlive its trainer. frozen: names, of those
    in the layout that no update changes.
    """

    layout: Layout
    own: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()


def inventory_of(model: nn.Module) -> Inventory:
    """Return the entries of a model's state dict that are tensors of its own, views of them."""
    tensors = {
        name: value
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor) and name.rpartition(".")[2] != EXTRA_STATE
    }
    kinds = _kinds(model)
    modules = (name for name, module in model.named_modules() if isinstance(module, _BatchNorm))
    prefixes = tuple(f"{name}." if name else "" for name in modules)
    return Inventory(
        tensors=tensors,
        kinds={name: kinds.get(identity, Kind.BUFFER) for name, identity in _identities(tensors).items()},
        batch_norm=frozenset(name for name in tensors if prefixes and name.startswith(prefixes)),
    )


def layout_of(model: nn.Module, sharing: Sharing | None = None) -> Layout:
    """Return the layout of what travels of a model; raises as `parts_of` does."""
    return parts_of(inventory_of(model), sharing or Sharing()).layout


def parts_of(inventory: Inventory, sharing: Sharing) -> Parts:
    """Divide what a model holds.

    Raises LayoutError when nothing travels or nothing is trained together, for a pattern without a tensor, for a
    tensor that two lists name, and for one that cannot travel.
    """
    identities = _identities({name: t for name, t in inventory.tensors.items() if _is_floating(t)})
    named = _named_once(inventory, identities, sharing)
    chosen = named["travel"] if sharing.travel else set(identities.values()) - named["keep"]
    shared = {name: inventory.tensors[name] for name, i in identities.items() if i in chosen | named["frozen"]}
    for name, tensor in shared.items():
        _check_can_travel(name, tensor)
    frozen = frozenset(name for name in shared if identities[name] in named["frozen"])
    if not shared.keys() - frozen:
        problem = "every tensor that travels is frozen" if frozen else "the model holds no floating tensor that travels"
        raise LayoutError(f"{problem}: nothing would be trained together")
    kinds = {name: Kind.FROZEN if name in frozen else inventory.kinds[name] for name in shared}
    kept = {name for name, identity in identities.items() if identity in named["keep"]}
    made_anew = {
        name
        for name, kind in inventory.kinds.items()
        if sharing.travel and kind is Kind.FROZEN and name not in kept  # a backbone that nobody trains
    }
    own = inventory.tensors.keys() - shared.keys() - made_anew
    return Parts(layout=Layout.of(_once(shared, kinds)), own=frozenset(own), frozen=frozen)


def freeze_(model: nn.Module, names: frozenset[str]) -> None:
    """Take these tensors of a state dict out of training."""
    state = model.state_dict()
    identities = set(_identities({name: state[name] for name in names}).values())
    for param in model.parameters():
        if _identity("", param) in identities:
            param.requires_grad_(False)


# ------------------------------------------------------------------ what the lists name


def _named_once(inventory: Inventory, identities: Mapping[str, object], sharing: Sharing) -> dict[str, set[object]]:
    """The tensors that each list names, by identity: a tied one is named under any of its names."""
    named: dict[str, set[object]] = {}
    for key, patterns in sharing.lists.items():
        named[key] = {
            identities[name] for pattern in patterns for name in _matches(inventory, identities, key, pattern)
        }
    for name, identity in identities.items():
        keys = [key for key, of_key in named.items() if identity in of_key]
        if len(keys) > 1:
            raise LayoutError(
                f"tensor {name!r} is named by {' and by '.join(keys)} of the job: it travels, stays at the site or is "
                "frozen; leave it out of one of them"
            )
    return named


def _matches(inventory: Inventory, names: Mapping[str, object], key: str, pattern: str) -> list[str]:
    match pattern:
        case "batch_norm":
            found = [name for name in names if name in inventory.batch_norm]
        case "buffers":
            found = [name for name in names if inventory.kinds[name] is Kind.BUFFER]
        case _:
            found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise LayoutError(
            f"{key}: {pattern!r} matches no tensor of the model; correct the job; {_there(names, pattern)}"
        )
    return found


def _there(names: Mapping[str, object], pattern: str) -> str:
    """The names nearest to a pattern, or some of all."""
    if near := difflib.get_close_matches(pattern, names, n=NEAREST, cutoff=0.5):
        return f"nearest are {', '.join(near)}"
    return f"it has {', '.join(list(names)[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


# ------------------------------------------------------------------ what tensors are


def _kinds(model: nn.Module) -> dict[object, Kind]:
    """What each parameter is, by identity: a state dict may know it under another name."""
    named = dict(model.named_parameters(remove_duplicate=False))
    kinds: dict[object, Kind] = {}
    for name, identity in _identities(named).items():
        learnt = named[name].requires_grad or kinds.get(identity) is Kind.LEARNT
        kinds[identity] = Kind.LEARNT if learnt else Kind.FROZEN
    return kinds


def _once(tensors: Mapping[str, Tensor], kinds: Mapping[str, Kind]) -> Iterator[TensorSpec]:
    names: dict[object, list[str]] = {}
    for name, identity in _identities(tensors).items():
        names.setdefault(identity, []).append(name)
    for shared in names.values():
        first, *aliases = sorted(shared)
        yield TensorSpec(
            name=first,
            shape=tuple(tensors[first].shape),
            dtype=str(tensors[first].dtype).removeprefix("torch."),
            kind=kinds[first],
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
