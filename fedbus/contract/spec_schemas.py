"""JSON schemas of the files that people write: a job, a federation, a site's policy. For editors, and other languages.

    fedbus schema job > deploy/job.schema.json         and federation, policy

Pydantic gives them; here they become what it does not say: short forms, names, keys that exclude each other, and one
section at a time for what has kinds, so that an editor shows the error where it is. Draft 7, which editors read best.
What several keys far apart must have in common only `fedbus check` knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from fedbus.core.protocol.messages import NAME
from fedbus.core.spec.continues import ContinuesSpec
from fedbus.core.spec.evaluate import MOST_MODELS, ModelSpec
from fedbus.core.spec.kinds import KINDS, TRAINING
from fedbus.core.spec.sections import (
    LocalSpec,
    PatienceSpec,
    RobustSpec,
    ServerOptimizerSpec,
    StopSpec,
    TargetSpec,
    UpSpec,
)
from fedbus.core.spec.site_policy import DAYS, FINGERPRINT, HospitalPolicy
from fedbus.provision.federation_file import FederationFile

Schema = dict[str, Any]
DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_NAME: Final[Schema] = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_FILE: Final[Schema] = {"type": "string", "pattern": r"^[^./\\\u0000][^/\\\u0000]*$"}
_KEYS: Final[Mapping[str, Schema]] = MappingProxyType(
    {"name": _NAME, "job": _NAME, "site": _NAME, "federation": _NAME, "initial_params": _FILE, "file": _FILE}
)
"""What texts under these keys look like, in whatever section."""
_OTHERS: Final[Mapping[str, Schema]] = MappingProxyType(
    {"models": {"minItems": 1, "maxItems": MOST_MODELS}, "task_config": {"type": "object"}}
)
_LISTS: Final[Mapping[str, Schema]] = MappingProxyType({"sites": _NAME, "submitters": _NAME})


def _kinds(section: type[BaseModel]) -> Schema:
    return {"enum": list(section.model_json_schema()["properties"]["kind"]["enum"])}


_SHORT: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        UpSpec.__name__: _kinds(UpSpec),
        ServerOptimizerSpec.__name__: _kinds(ServerOptimizerSpec),
        RobustSpec.__name__: _kinds(RobustSpec),
        ContinuesSpec.__name__: _NAME,
        PatienceSpec.__name__: {"type": "integer", "minimum": 1, "maximum": 10**12},
    }
)
"""What may stand instead of a section."""
_ONE_OF: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        LocalSpec.__name__: ("steps", "epochs", "seconds"),
        TargetSpec.__name__: ("at_least", "at_most"),
        ModelSpec.__name__: ("job", "file"),
    }
)
_SOME_OF: Final[Mapping[str, Sequence[str]]] = MappingProxyType({StopSpec.__name__: tuple(StopSpec.model_fields)})
_DAY = f"({'|'.join(DAYS)})"
_WINDOW: Final[Schema] = {
    "type": "string",
    "description": "Days and times, such as 'mon-fri 19:00-07:00'.",
    "pattern": f"^{_DAY}(-{_DAY})?(,{_DAY}(-{_DAY})?)* [0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$",
}


def job_schema() -> Schema:
    """A job of any kind; one that says none is a training."""
    definitions: Schema = {}
    by_kind = {kind: _defined(spec, definitions) for kind, spec in KINDS.items()}
    chain: Schema = by_kind.pop(TRAINING)
    for kind, section in reversed(by_kind.items()):
        chain = {"if": _is_kind(kind), "then": section, "else": chain}
    kinds = {"enum": list(KINDS), "default": TRAINING, "description": "What the job does."}
    return _whole("job", "A job of fedbus.", {"properties": {"kind": kinds}, **chain}, definitions)


def federation_schema() -> Schema:
    """`federation.yaml`."""
    definitions: Schema = {}
    return _whole("federation", "Who takes part in a federation.", _defined(FederationFile, definitions), definitions)


def policy_schema() -> Schema:
    """A site's `policy.toml`."""
    definitions: Schema = {}
    section = _defined(HospitalPolicy, definitions)
    definitions["Window"] = dict(_WINDOW)
    hex4 = FINGERPRINT.pattern
    definitions["Submitter"]["properties"]["fingerprint"]["pattern"] = f"^(any|{hex4})$"
    definitions["JobRules"]["properties"]["kinds"]["items"] = {"enum": list(KINDS)}
    return _whole("policy", "What a site allows.", section, definitions)


SCHEMAS: Final = MappingProxyType({"job": job_schema, "federation": federation_schema, "policy": policy_schema})


def as_json(name: str) -> str:
    """One of SCHEMAS as its file has it."""
    return json.dumps(SCHEMAS[name](), indent=1, ensure_ascii=False) + "\n"


def _whole(name: str, says: str, section: Schema, definitions: Schema) -> Schema:
    head = {"$schema": DRAFT, "$id": f"urn:fedbus:{name}", "title": f"fedbus {name}", "description": says}
    return {**head, "type": "object", **section, "definitions": dict(sorted(definitions.items()))}


def _defined(spec: type[BaseModel], definitions: Schema) -> Schema:
    """A reference to the schema of a class; what it needs joins `definitions`."""
    whole = spec.model_json_schema(ref_template="#/definitions/{model}")
    for name, section in {**whole.pop("$defs", {}), spec.__name__: whole}.items():
        definitions[name] = _section(name, section)
    return {"allOf": [{"$ref": f"#/definitions/{spec.__name__}"}]}


def _section(name: str, section: Schema) -> Schema:
    found: Schema = _exact(section)
    for key, one in found.get("properties", {}).items():
        _say_names(key, one)
    if name in _ONE_OF:
        found["oneOf"] = [_given(key) for key in _ONE_OF[name]]
    if name in _SOME_OF:
        found["anyOf"] = [_given(key) for key in _SOME_OF[name]]
    if name == ServerOptimizerSpec.__name__:
        found["properties"]["lr"]["anyOf"].append({"type": "null"})
    if name not in _SHORT:
        return found
    short = _SHORT[name]
    test = {"type": short["type"]} if short.get("type") == "integer" else {"type": "string"}
    return {"description": found.pop("description", ""), "if": test, "then": short, "else": found}


def _say_names(key: str, schema: Schema) -> None:
    if key in _KEYS and "string" in schema.get("type", ()):
        schema["pattern"] = _KEYS[key]["pattern"]
    if key in _LISTS and schema.get("items") == {"type": "string"}:
        schema |= {"items": _LISTS[key], "uniqueItems": True}
        if "null" in schema["type"]:
            schema["minItems"] = 1
    if key in _OTHERS:
        schema |= _OTHERS[key]


def _given(key: str) -> Schema:
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


def _is_kind(kind: str) -> Schema:
    return {"required": ["kind"], "properties": {"kind": {"const": kind}}}


def _exact(value: Any) -> Any:
    """A schema of pydantic's in the words of draft 7, without titles."""
    if isinstance(value, list):
        return [_exact(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _values(key, one) for key, one in value.items() if key not in ("title", "discriminator")}
    for old, new in (("ge", "minimum"), ("le", "maximum")):
        if old in found:
            found[new] = found.pop(old)
    if "discriminator" in value:
        found |= _by_kind(value["discriminator"]["mapping"])
        del found["oneOf"]
    if {"type": "null"} in found.get("anyOf", ()):
        found |= _or_null([one for one in found.pop("anyOf") if one != {"type": "null"}])
    if "$ref" in found and len(found) > 1:
        found = {"allOf": [{"$ref": found.pop("$ref")}], **found}
    return found


def _values(key: str, value: Any) -> Any:
    """`properties` has sections by names, which may be called like words of JSON schema."""
    if key in ("properties", "$defs"):
        return {name: _exact(one) for name, one in value.items()}
    return value if key in ("default", "const", "enum") else _exact(value)


def _or_null(options: list[Schema]) -> Schema:
    """One of these, or nothing; as one where that can be, for an error in it then has its own path."""
    if len(options) > 1:
        return {"anyOf": [*options, {"type": "null"}]}
    option = options[0]
    if "enum" in option:
        return {**option, "type": [option["type"], "null"], "enum": [*option["enum"], None]}
    if "const" in option:
        return {"enum": [option["const"], None]}
    if "type" in option:
        return {**option, "type": [option["type"], "null"]}
    return {"if": {"type": "null"}, "then": {}, "else": option}


def _by_kind(sections: Mapping[str, str]) -> Schema:
    """A choice of sections by their kind, which alone is enough."""
    kinds = list(sections)
    cases = [{"if": _is_kind(kind), "then": {"$ref": place}} for kind, place in sections.items()]
    section = {"type": "object", "required": ["kind"], "properties": {"kind": {"enum": kinds}}, "allOf": cases}
    return {"if": {"type": "string"}, "then": {"enum": kinds}, "else": section}
