"""A model as a file that other programs take: a bare state dict, read back and compared before anybody gets it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedbus.errors import LayoutError, StoreError

MOST_NAMED = 5
NOT_LOADABLE = (RuntimeError, pickle.UnpicklingError, ValueError, EOFError, OSError, KeyError, TypeError)


def write_state_dict(params: Mapping[str, object], path: Path, *, like: Path | None = None) -> None:
    """Write the tensors of `params`, exactly, on the CPU, with `torch.save`.

    like: a file that the new one is to replace. Where it is there its names and shapes must be the same: whoever loads
    it would otherwise go on with untrained tensors. Raises LayoutError when they are not, StoreError when what was
    written is not what is read back.
    """
    state = {name: t.detach().cpu().contiguous().clone() for name, t in params.items() if isinstance(t, Tensor)}
    if like is not None and like.exists():
        _check_like(state, like)
    torch.save(state, path)
    found = _loaded(path)
    same = found.keys() == state.keys() and all(_equal(found[name], tensor) for name, tensor in state.items())
    if not same:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path}: what was written is not what is read back; is the disk sound?")


def _check_like(state: Mapping[str, Tensor], like: Path) -> None:
    theirs = _loaded(like)
    differ = [name for name in sorted({*state, *theirs}) if _shape(state.get(name)) != _shape(theirs.get(name))]
    if differ:
        named = ", ".join(f"{name} {_shape(state.get(name))}" for name in differ[:MOST_NAMED])
        raise LayoutError(
            f"the model that is to be replaced has other tensors: {len(differ)} of {len(state)} differ ({named});"
            " give its bundle the network of the job"
        )


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except NOT_LOADABLE as exc:
        raise StoreError(f"{path} cannot be loaded as a state dict: {type(exc).__name__}") from exc
    inner = found.get("model") if isinstance(found, dict) else None
    found = inner if isinstance(inner, dict) else found
    if not isinstance(found, dict):
        raise StoreError(f"{path} holds a {type(found).__name__}, a state dict was expected")
    return found


def _shape(tensor: object) -> str:
    return f"({','.join(map(str, tensor.shape))})" if isinstance(tensor, Tensor) else "missing"


def _equal(found: object, tensor: Tensor) -> bool:
    # bytes and not values: a NaN in a running statistic is no damage
    return (
        isinstance(found, Tensor)
        and found.dtype == tensor.dtype
        and found.shape == tensor.shape
        and bool(torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)))
    )
