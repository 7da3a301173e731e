"""Where each tensor of a model lies in the one flat float32 vector that travels.

What lives here: names, shapes, dtypes, kinds and the order of tensors. What may not: tensors (see `fedbus.tensors`).

    kind     what it is                                          in an update     what a version makes of it
    buffer   running mean and variance, and other float buffers  its value        a convex combination of values
    frozen   params without `requires_grad`                      its value        the same
    learnt   params with `requires_grad`                         value - base     a step along the mean delta

Order: values first (buffers, then frozen), then what is learnt: its small tensors (up to 1024 elements: biases,
normalisation), then the others; each group by name. Values and the small section are always coded exactly: they cost
next to nothing and are what quantization hurts most.

Values travel in frames of VALUE_FRAME elements, cut where `value_stop` says, so that an update leaves out those that
training has not changed (a frozen network costs nothing) and sums over sites can be kept frame by frame.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fedbus.errors import DecodeError, LayoutError

DTYPES = frozenset({"float32", "float16", "bfloat16", "float64"})
SMALL_NUMEL = 1024
VALUE_FRAME = 1 << 16
MAX_TENSORS = 1_000_000
MAX_NUMEL = 10**11
MAX_DIMS = 64
MAX_NAME = 1024


class Kind(StrEnum):
    """What training does to a tensor; see the table at the head of this module. Its order is that of the sections."""

    BUFFER = "buffer"
    FROZEN = "frozen"
    LEARNT = "learnt"


_SECTION = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor that travels: its name in the state dict, shape, dtype and kind. Raises LayoutError when malformed.

    aliases: other names of the same tensor, such as those of tied weights; it travels once, under the first by
    alphabet.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: Kind = Kind.LEARNT
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if not 0 < len(name) <= MAX_NAME:
                raise LayoutError(f"tensor name of {len(name)} characters: expected 1 to {MAX_NAME}")
        if self.dtype not in DTYPES:
            raise LayoutError(
                f"tensor {self.name!r} is {self.dtype}: expected one of {', '.join(sorted(DTYPES))}; convert it in the "
                "task's model(), or name it under `keep` so that it stays at the site"
            )
        if len(self.shape) > MAX_DIMS or any(not 0 <= size <= MAX_NUMEL for size in self.shape):
            raise LayoutError(f"tensor {self.name!r}: up to {MAX_DIMS} dimensions, each 0 to {MAX_NUMEL}, are allowed")

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return (self.name, *self.aliases)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_value(self) -> bool:
        """Whether it travels as a value and is never stepped."""
        return self.kind is not Kind.LEARNT

    @property
    def is_small(self) -> bool:
        """Whether it belongs to the section of what is learnt that is always coded exactly."""
        return not self.is_value and self.numel <= SMALL_NUMEL

    @property
    def order(self) -> tuple[int, bool, str]:
        """Its place among the others: by section, small ones first, by name."""
        # by name, not as the model lists them: a safetensors file does not keep that order
        return _SECTION[self.kind], not self.is_small, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All tensors of a job in flat order; two parties with equal `digest` agree on every element's place.

    `numel` counts all elements, `value_numel` those that travel as values, `exact_numel` these and the small section of
    what is learnt, `learnt_numel` all of what is learnt. Raises LayoutError when it is empty, too large, out of order,
    or names a tensor twice; `Layout.of` puts specs in order.
    """

    tensors: tuple[TensorSpec, ...]
    numel: int = field(init=False, repr=False, compare=False)
    value_numel: int = field(init=False, repr=False, compare=False)
    exact_numel: int = field(init=False, repr=False, compare=False)
    digest: str = field(init=False, repr=False, compare=False)
    _buffer_numel: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.tensors)
        object.__setattr__(self, "numel", sum(t.numel for t in self.tensors))
        object.__setattr__(self, "_buffer_numel", sum(t.numel for t in self.tensors if t.kind is Kind.BUFFER))
        object.__setattr__(self, "value_numel", sum(t.numel for t in self.tensors if t.is_value))
        object.__setattr__(self, "exact_numel", sum(t.numel for t in self.tensors if t.is_value or t.is_small))
        object.__setattr__(self, "digest", _digest(self.to_dict()))

    @classmethod
    def of(cls, specs: Iterable[TensorSpec]) -> Layout:
        """Put the specs in flat order and check them; raises LayoutError."""
        return cls(tensors=tuple(sorted(specs, key=lambda spec: spec.order)))

    @property
    def learnt_numel(self) -> int:
        return self.numel - self.value_numel

    def slices(self) -> dict[str, tuple[int, int]]:
        """Return name -> (start, stop) in the flat vector; of a tensor with several names, under the first."""
        places: dict[str, tuple[int, int]] = {}
        start = 0
        for spec in self.tensors:
            places[spec.name] = (start, start + spec.numel)
            start += spec.numel
        return places

    def value_ranges(self) -> tuple[tuple[int, int], ...]:
        """Return (start, stop) of every frame of values, in order."""
        sections = ((0, self._buffer_numel), (self._buffer_numel, self.value_numel))
        return tuple(
            (start, min(start + VALUE_FRAME, stop))
            for first, stop in sections
            for start in range(first, stop, VALUE_FRAME)
        )

    def value_stop(self, start: int) -> int | None:
        """Return where the frame of values stops that starts at `start`; None when none starts there."""
        first, stop = (0, self._buffer_numel) if start < self._buffer_numel else (self._buffer_numel, self.value_numel)
        if not first <= start < stop or (start - first) % VALUE_FRAME:
            return None
        return min(start + VALUE_FRAME, stop)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data that `from_dict` reads back."""
        return {"tensors": [_row(t) for t in self.tensors]}

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
    name, times = Counter(name for t in tensors for name in t.names).most_common(1)[0]
    if times > 1:
        raise LayoutError(f"tensor {name!r} is named {times} times")
    numel = sum(t.numel for t in tensors)
    if not 0 < numel <= MAX_NUMEL:
        raise LayoutError(f"a layout has 1 to {MAX_NUMEL} elements, not {numel}")
    places = [t.order[:2] for t in tensors]
    if places != sorted(places):
        raise LayoutError("values come first, then tensors of up to 1024 elements: build the layout with Layout.of")


def _digest(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _row(spec: TensorSpec) -> list[Any]:
    """[name, shape, dtype], and only of a tensor that is not just learnt under one name [..., kind, aliases]."""
    row: list[Any] = [spec.name, list(spec.shape), spec.dtype]
    return row if spec.kind is Kind.LEARNT and not spec.aliases else [*row, str(spec.kind), list(spec.aliases)]


def _spec_from(row: object) -> TensorSpec:
    match row:
        case [str() as name, list() as shape, str() as dtype, *rest] if all(type(size) is int for size in shape):
            kind, aliases = _kind_from(rest)
            return TensorSpec(name=name, shape=tuple(shape), dtype=dtype, kind=kind, aliases=aliases)
    raise DecodeError("a tensor of a layout is [name, [sizes], dtype] with whole numbers as sizes")


def _kind_from(rest: list[object]) -> tuple[Kind, tuple[str, ...]]:
    match rest:
        case []:
            return Kind.LEARNT, ()
        case [str() as kind, list() as aliases] if kind in set(Kind) and all(type(name) is str for name in aliases):
            return Kind(kind), tuple(map(str, aliases))
    raise DecodeError(f"after its dtype a tensor of a layout has its kind, one of {', '.join(Kind)}, and other names")
