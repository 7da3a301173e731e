"""Every key of a job spec with its type, default, allowed range and a sentence, made from the classes themselves.

fedbus check --reference                                            for people
python -m fedbus.core.spec.reference > deploy/docs/job-spec.md      the same as Markdown
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.kinds import KINDS, TRAINING

WIDTH = 80

Schema = Mapping[str, Any]

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "object": "mapping",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. `kind`: it belongs to this kind of job, or of its section, only; empty where it belongs to all.

    The keys of a training say no kind, for that is what a job is that says none.
    """

    path: str
    kind: str
    type: str
    default: str
    sentence: str

    @property
    def name(self) -> str:
        return f"{self.path} ({self.kind})" if self.kind else self.path


def keys() -> list[Key]:
    """Return every key of a job spec, in the order of the classes."""
    head = JobSpec.model_fields.keys()
    found = [key for key in _of(JobSpec) if key.path.partition(".")[0] in head]
    for kind, spec in KINDS.items():
        of_kind = (key for key in _of(spec) if key.path.partition(".")[0] not in head)
        found += [replace(key, path="kind", type=kind) if key.path == "kind" else _marked(key, kind) for key in of_kind]
    return found


def _of(spec: type[JobSpec]) -> Iterator[Key]:
    schema = spec.model_json_schema()
    return _keys_of(schema, "", "", schema.get("$defs", {}))


def _marked(key: Key, kind: str) -> Key:
    return key if kind == TRAINING or key.kind else replace(key, kind=kind)


def as_text() -> str:
    """Return the reference as plain text that fits 80 columns."""
    return "\n".join(line for key in keys() for line in _lines(key))


def as_markdown() -> str:
    """Return the reference as one table in Markdown."""
    head = [
        "# Every key of a job spec",
        "",
        "Made from the classes by `python -m fedbus.core.spec.reference`; a test compares. In brackets: the kind",
        "of job, or of its section, that a key belongs to; what has none and comes after `kind` belongs to a training.",
        "",
        "| key | value | default | |",
        "|---|---|---|---|",
    ]
    rows = (f"| `{key.path}`{f' ({key.kind})' * bool(key.kind)} | {_cell(key)} |" for key in keys())
    return "\n".join([*head, *rows]) + "\n"


def _cell(key: Key) -> str:
    return " | ".join(part.replace("|", "\\|") for part in (key.type, key.default, key.sentence))


def _lines(key: Key) -> Iterator[str]:
    head = f"{key.name}: {key.type}, {'required' if key.default == 'required' else f'default {key.default}'}"
    yield from textwrap.wrap(head, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    yield from textwrap.wrap(
        key.sentence, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )


def _keys_of(section: Schema, above: str, kind: str, defs: Schema) -> Iterator[Key]:
    required = section.get("required", ())
    for name, found in section["properties"].items():
        if kind and name == "kind":
            continue
        path = f"{above}{name}"
        yield Key(
            path=path,
            kind=kind,
            type=_type(found, defs),
            default="required" if name in required else _default(found),
            sentence=found.get("description", ""),
        )
        yield from _keys_below(found, path, defs)


def _keys_below(found: Schema, path: str, defs: Schema) -> Iterator[Key]:
    """The keys of the section that a key opens; of one that is a choice of kinds, those of each kind."""
    kinds = found.get("discriminator", {}).get("mapping", {})
    for kind, ref in kinds.items():
        section = _resolved({"$ref": ref}, defs)
        sentence = section["properties"]["kind"]["description"]
        yield Key(path=f"{path}.kind", kind="", type=kind, default="required", sentence=sentence)
        yield from _keys_of(section, f"{path}.", kind, defs)
    for option in () if kinds else _options(found):
        section = _resolved(option.get("items", option), defs)
        if "properties" in section:
            yield from _keys_of(section, f"{path}.N." if "items" in option else f"{path}.", "", defs)


def _resolved(schema: Schema, defs: Schema) -> Schema:
    ref = schema.get("$ref")
    return defs[ref.rpartition("/")[2]] if ref else schema


def _options(schema: Schema) -> list[Schema]:
    """What a key may be, without null."""
    options = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [option for option in options if option.get("type") != "null"]


def _type(schema: Schema, defs: Schema) -> str:
    if "discriminator" in schema:
        return f"one of {', '.join(schema['discriminator']['mapping'])}, or a mapping"
    return " or ".join(_type_of(_resolved(option, defs)) for option in _options(schema))


def _type_of(schema: Schema) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema.get("type") == "array":
        return f"list of {'mappings' if '$ref' in schema['items'] else 'text'}"
    return _TYPES[schema["type"]] + _range(schema) if "type" in schema else "mapping"


def _range(schema: Schema) -> str:
    if "pattern" in schema:
        signs, least, most = re.fullmatch(r"\^\[(.+)\]\{(\d+),(\d+)\}\$", schema["pattern"]).groups()  # type: ignore[union-attr]
        return f" of {least} to {most} of {signs}"
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is None and above is None:
        return ""
    upper = f"below {_number(below)}" if high is None else _number(high)
    return f" above {_number(above)} up to {upper}" if low is None else f" from {_number(low)} to {upper}"


def _number(value: float | None) -> str:
    """As people write it: 10^6 and 2^63 for large round numbers."""
    if value is None:
        return "any"
    size = abs(value)
    if size >= 10**4:
        for base in (10, 2):
            power = round(math.log(size, base))
            if base**power == size:
                return f"{'-' * (value < 0)}{base}^{power}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default(schema: Schema) -> str:
    match schema.get("default"):
        case {"kind": kind}:
            return str(kind)
        case {**keys} if keys:
            return "below"
        case str() as text:
            return text
        case None if "default" not in schema:
            return "{}"
        case value:
            return json.dumps(value)


if __name__ == "__main__":
    print(as_markdown(), end="")
