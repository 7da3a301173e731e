"""JSON schemas of dataclasses: what stands on the wire, with what their docstrings say.

All types of the document are turned at once, so that what two of them share is there once.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from fedbus.core.protocol.messages import NAME

Schema = dict[str, Any]
PLACE = "#/components/schemas/"
_NAMED = ("job", "site")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schemas:
    """`of`: the schema of each type that was asked for, a reference; `shared`: what references lead to, by name."""

    of: Mapping[type, Schema]
    shared: Mapping[str, Schema]


def schemas_of(types: Sequence[type]) -> Schemas:
    """Schemas of frozen dataclasses as JSON that is read; unknown keys are allowed, as readers ignore them."""
    inputs: Any = [(kind, "validation", TypeAdapter(kind)) for kind in types]
    found: Any
    found, whole = TypeAdapter.json_schemas(inputs, ref_template=PLACE + "{model}")
    shared = {name: tidy(schema) for name, schema in sorted(whole["$defs"].items())}
    return Schemas(of={kind: found[kind, "validation"] for kind in types}, shared=shared)


def words_of(kind: type) -> str:
    """The docstring of a class."""
    return inspect.cleandoc(kind.__doc__ or "")


def summary_of(kind: type) -> str:
    """The first sentence of a docstring."""
    first = " ".join(words_of(kind).split("\n\n")[0].split())
    return first.partition(". ")[0].removesuffix(".")


def tidy(schema: Schema) -> Schema:
    """Without the titles that pydantic makes of names, and with what every name must look like."""
    kept = {key: value for key, value in schema.items() if key != "title"}
    if "properties" in kept:
        kept["properties"] = {name: _property(name, one) for name, one in kept["properties"].items()}
    return kept


def _property(name: str, schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key != "title"}
    if name in _NAMED and kept.get("type") == "string" and "default" not in kept:
        kept["pattern"] = f"^{NAME.pattern}$"
    return kept
