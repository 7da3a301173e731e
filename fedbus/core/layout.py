"""Where each tensor of a model lies in the one flat float32 vector that travels.

What lives here: names, shapes, dtypes and the order of tensors. What may not: tensors (see `fedbus.tensors`).

Order: the small tensors (up to 1024 elements: biases, normalisation) first, then the others, each group in the order
given. The small section is always coded exactly: it costs next to nothing and is what quantization hurts most.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedbus.errors import DecodeError, LayoutError

DTYPES = frozenset({"float32", "float16", "bfloat16", "float64"})
SMALL_NUMEL = 1024
MAX_TENSORS = 1_000_000
MAX_NUMEL = 10**11
MAX_DIMS = 64
MAX_NAME = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor that travels: its name in the state dict, shape and dtype. Raises LayoutError when malformed."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_NAME:
            raise LayoutError(f"tensor name of {len(self.name)} characters: expected 1 to {MAX_NAME}")
        if self.dtype not in DTYPES:
            raise LayoutError(f"tensor {self.name!r} is {self.dtype}: expected one of {', '.join(sorted(DTYPES))}")
        if len(self.shape) > MAX_DIMS or any(not 0 <= size <= MAX_NUMEL for size in self.shape):
            raise LayoutError(f"tensor {self.name!r}: up to {MAX_DIMS} dimensions, each 0 to {MAX_NUMEL}, are allowed")

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_small(self) -> bool:
        """Whether the tensor belongs to the section that is always coded exactly."""
        return self.numel <= SMALL_NUMEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All tensors of a job in flat order; two parties with equal `digest` agree on every element's place.

    `numel` counts all elements, `exact_numel` those of the small section. Raises LayoutError when it is empty, too
    large, out of order, or names a tensor twice; `Layout.of` puts specs in order.
    """

    tensors: tuple[TensorSpec, ...]
    numel: int = field(init=False, repr=False, compare=False)
    exact_numel: int = field(init=False, repr=False, compare=False)
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.tensors)
        object.__setattr__(self, "numel", sum(t.numel for t in self.tensors))
        object.__setattr__(self, "exact_numel", sum(t.numel for t in self.tensors if t.is_small))
        object.__setattr__(self, "digest", _digest(self.to_dict()))

    @classmethod
    def of(cls, specs: Iterable[TensorSpec]) -> Layout:
        """Put the specs in flat order and check them; raises LayoutError."""
        # By name, not as the model lists them: a safetensors file does not keep that order.
        return cls(tensors=tuple(sorted(specs, key=lambda spec: (not spec.is_small, spec.name))))

    def slices(self) -> dict[str, tuple[int, int]]:
        """Return name -> (start, stop) in the flat vector."""
        places: dict[str, tuple[int, int]] = {}
        start = 0
        for spec in self.tensors:
            places[spec.name] = (start, start + spec.numel)
            start += spec.numel
        return places

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data that `from_dict` reads back."""
        return {"tensors": [[t.name, list(t.shape), t.dtype] for t in self.tensors]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layout:
        """Read a layout that came from elsewhere; raises DecodeError unless every part of it is valid."""
        rows = data.get("tensors") if isinstance(data, Mapping) else None
        if not isinstance(rows, list) or len(rows) > MAX_TENSORS:
            raise DecodeError(f"a layout is {{'tensors': [up to {MAX_TENSORS} of [name, shape, dtype]]}}")
        try:
            return cls(tensors=tuple(_spec_from(row) for row in rows))
        except LayoutError as exc:
            raise DecodeError(f"the layout received is invalid: {exc}") from exc


def _check(tensors: tuple[TensorSpec, ...]) -> None:
    if not 0 < len(tensors) <= MAX_TENSORS:
        raise LayoutError(f"a layout has 1 to {MAX_TENSORS} tensors, not {len(tensors)}")
    name, times = Counter(t.name for t in tensors).most_common(1)[0]
    if times > 1:
        raise LayoutError(f"tensor {name!r} is named {times} times")
    numel = sum(t.numel for t in tensors)
    if not 0 < numel <= MAX_NUMEL:
        raise LayoutError(f"a layout has 1 to {MAX_NUMEL} elements, not {numel}")
    small = [t.is_small for t in tensors]
    if small != sorted(small, reverse=True):
        raise LayoutError("tensors of up to 1024 elements come first: build the layout with Layout.of")


def _digest(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _spec_from(row: object) -> TensorSpec:
    match row:
        case [str() as name, list() as shape, str() as dtype] if all(type(size) is int for size in shape):
            return TensorSpec(name=name, shape=tuple(shape), dtype=dtype)
    raise DecodeError("a tensor of a layout is [name, [sizes], dtype] with whole numbers as sizes")
