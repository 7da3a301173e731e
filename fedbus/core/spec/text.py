"""The text around a job spec: YAML in, problems in plain words out, JSON data that cannot be changed.

What lives here: how a spec is read and how its mistakes are said. What may not: the keys of a spec (see `training`).
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from fedbus.core.spec import hints as spec_hints
from fedbus.errors import JobSpecError, Problem

MAX_TEXT_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000


class SpecValueError(ValueError):
    """A rule over several keys is broken; `path` is the key to change, below the section that was checked."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(message)


# ------------------------------------------------------------------ YAML


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with a trap of YAML 1.1 closed: `1e-3` is a number. Another one is closed by `_twice`."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"), list("-+0123456789")
)


def load_yaml(text: str) -> object:
    """Read one YAML document (JSON is YAML too); JobSpecError with the line where its syntax breaks."""
    if len(text) > MAX_TEXT_BYTES:
        raise JobSpecError([Problem(path="", message=f"a job spec has at most {MAX_TEXT_BYTES} characters")])
    try:
        return _plain_data(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise JobSpecError([Problem(path="", message=f"{where}no valid YAML: {exc.problem or exc.context}")]) from exc
    except yaml.YAMLError as exc:
        raise JobSpecError([Problem(path="", message=f"no valid YAML: {exc}")]) from exc
    except (RecursionError, ValueError) as exc:  # a thousand brackets; a date such as 2024-13-45
        raise JobSpecError([Problem(path="", message=f"no valid YAML: {exc}")]) from exc


def _plain_data(text: str) -> object:
    """The document as plain data. Raises JobSpecError for every key that is given twice, with its path and line."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if problems := list(_twice(node, (), set())):
            raise JobSpecError(problems)
        return loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _twice(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[Problem]:
    """Of two values for one key YAML silently takes the last. `seen`: nodes that an alias may bring again."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _twice(item, (*path, str(index)), seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and isinstance(key, yaml.ScalarNode):
                yield given_twice((*path, name), f"in lines {lines[name]} and {line}")
            lines.setdefault(name, line)
            yield from _twice(value, (*path, name), seen)


def given_twice(path: tuple[str, ...], where: str = "") -> Problem:
    """The problem of a key that stands twice in its mapping."""
    said = f" ({where})" if where else ""
    return Problem(path=".".join(path), message=f"the key is given twice{said}: leave one of them out")


# ------------------------------------------------------------------ JSON data


class _Twice(dict[str, Any]):
    """A JSON object in which some keys stood twice."""

    twice: tuple[str, ...] = ()


def load_json(body: bytes) -> object:
    """Read JSON. Raises ValueError for its syntax, JobSpecError for every key that is given twice, with its path."""
    data = json.loads(body, object_pairs_hook=_pairs)
    if problems := list(_twice_in_json(data, ())):
        raise JobSpecError(problems)
    return data


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = _Twice(found)
    marked.twice = tuple(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return marked


def _twice_in_json(value: object, path: tuple[str, ...]) -> Iterator[Problem]:
    if isinstance(value, _Twice):
        yield from (given_twice((*path, key)) for key in value.twice)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _twice_in_json(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _twice_in_json(item, (*path, str(index)))


def frozen_json(value: object) -> Mapping[str, Any]:
    """Return a read-only deep copy of a JSON object; ValueError names the key that JSON cannot carry.

    Mappings become `MappingProxyType`, lists become tuples. Depth and number of values are bounded.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping of keys to values, got {shown(value)}")
    budget = iter(range(MAX_VALUES))
    return MappingProxyType({_text(key): _frozen(item, _text(key), 1, budget) for key, item in value.items()})


def _frozen(value: object, path: str, depth: int, budget: Iterator[int]) -> object:
    if depth > MAX_DEPTH or next(budget, None) is None:
        raise ValueError(f"{path} is nested deeper than {MAX_DEPTH} levels, or there are over {MAX_VALUES} values")
    match value:
        case int() if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{path} must fit in 64 bits, which is what a site can pass on to its task")
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{path} must be a finite number, got {value}")
            return value
        case Mapping():
            return MappingProxyType(
                {_text(key): _frozen(item, f"{path}.{key}", depth + 1, budget) for key, item in value.items()}
            )
        case list() | tuple():
            return tuple(_frozen(item, f"{path}.{index}", depth + 1, budget) for index, item in enumerate(value))
        case _:
            raise ValueError(
                f"{path} must be text, a number, true or false, null, a list or a mapping; got {shown(value)}"
            )


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"keys are text; put {key!r} in quotes")
    return key


def thawed_json(value: Any) -> Any:
    """Return plain dicts and lists again."""
    match value:
        case Mapping():
            return {key: thawed_json(item) for key, item in value.items()}
        case tuple():
            return [thawed_json(item) for item in value]
        case _:
            return value


# ------------------------------------------------------------------ problems in plain words


def shown(value: object) -> str:
    """Name a value in a few characters, with its kind where that is the point: `'5' (text)`."""
    match value:
        case None:
            text = "nothing"
        case bool():
            text = str(value).lower()
        case Mapping():
            text = "a mapping"
        case list() | tuple():
            text = "a list"
        case str():
            text = f"{value[:40]!r} (text)"
        case date():
            text = f"the date {value} (put it in quotes to make it text)"
        case _:
            text = f"{value!r:.60}"
    return text


def nearest_words(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the word that is most like it; empty when none is."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Translate pydantic's errors into problems with dotted paths, one per path, in words for the spec's author."""
    found: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        problem = _problem(dict(detail), model)
        found.setdefault(problem.path, []).append(problem.message)
    # a key that takes one thing or another has a message for each
    return [Problem(path=path, message="; or ".join(dict.fromkeys(said))) for path, said in found.items()]


def _problem(detail: dict[str, Any], model: type[BaseModel]) -> Problem:
    section, path = _walk(model, detail["loc"], detail["type"])
    dotted = ".".join(path)
    got = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            message = "is required"
        case "extra_forbidden":
            message = _unknown_key(path, section, model)
        case "union_tag_not_found":
            dotted, message = f"{dotted}.kind", f"is required: one of {_kinds(section)}"
        case "union_tag_invalid":
            dotted, message = f"{dotted}.kind", f"expected one of {_kinds(section)}; got {shown(context['tag'])}"
            message += spec_hints.of_kind(dotted, context["tag"])
        case "literal_error":
            choices = context["expected"].replace(" or ", ", ").replace("'", "")
            message = f"expected one of {choices}; got {shown(got)}{spec_hints.of_kind(dotted, got)}"
        case "invalid_key":
            message = f"keys are text; put {path[-1]} in quotes"
        case "value_error":
            error = context["error"]
            dotted = ".".join([*path, error.path]) if isinstance(error, SpecValueError) else dotted
            message = str(error)
        case "int_type" | "float_type" | "string_type" | "bool_type" | "tuple_type" | "finite_number":
            message = f"expected {_EXPECTED[detail['type']]}, got {shown(got)}"
        case "model_type" | "model_attributes_type":
            message = f"expected a mapping of keys to values, got {shown(got)}"
        case _:
            message = f"{detail['msg'].replace('Input should', 'must')}; got {shown(got)}"
    return Problem(path=dotted, message=message)


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}


def _members(annotation: Any) -> list[type[BaseModel]]:
    """Every spec class inside an annotation such as `A | B | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for inner in get_args(annotation) for member in _members(inner)]


def _walk(model: type[BaseModel], loc: tuple[int | str, ...], kind: str) -> tuple[list[type[BaseModel]], list[str]]:
    """Follow pydantic's location: the classes of the section it ends in, and its path without the tags of unions."""
    sections, path, in_union = [model], [], False
    for step in loc:
        tagged = [s for s in sections if len(sections) > 1 and _kind(s) == step]
        if tagged:
            sections = tagged
            continue
        if in_union and isinstance(step, str):
            continue
        path.append(str(step))
        if isinstance(step, int):
            continue  # an item of a list has the classes of the list
        fields = [section.model_fields[step] for section in sections if step in section.model_fields]
        members = [m for field in fields for m in _members(field.annotation)]
        in_union = not members and any(get_origin(field.annotation) in {Union, UnionType} for field in fields)
        sections = members or (sections if kind == "extra_forbidden" else [])
    return sections, path


def _kind(section: type[BaseModel]) -> object:
    field = section.model_fields.get("kind")
    return field.default if field else None


def _kinds(sections: list[type[BaseModel]]) -> str:
    return ", ".join(str(_kind(section)) for section in sections)


def _unknown_key(path: list[str], sections: list[type[BaseModel]], model: type[BaseModel]) -> str:
    *parents, key = path
    known = sorted({name for section in sections for name in section.model_fields})
    homes = [".".join([*above, key]) for above, names in _all_keys(model) if key in names and above != parents]
    hint = spec_hints.of_key(key, parents)
    near = nearest_words(key, known)
    if any(above == parents and key in names for above, names in _all_keys(model)):
        return f"is no key of kind {_kinds(sections)!r}; known here: {', '.join(known)}"
    if hint:
        return hint
    if homes:
        return f"unknown key here; it belongs at {homes[0]}"
    if near:
        return f"unknown key{near}"
    return f"unknown key; known here: {', '.join(known)}"


def _all_keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[list[str], list[str]]]:
    yield list(above), list(model.model_fields)
    for name, field in model.model_fields.items():
        for member in _members(field.annotation):
            yield from _all_keys(member, (*above, name))
