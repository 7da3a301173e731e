"""Every message of the bus as AsyncAPI describes one: headers, payload, AMQP type, what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from pydantic import TypeAdapter

from fedbus.contract.examples import EXAMPLES
from fedbus.contract.schemas import Schema, Schemas, schemas_of, summary_of, tidy, words_of
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import events, wire
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import requests as q
from fedbus.core.protocol.events.base import fact_names
from fedbus.core.spec.kinds import KINDS

AMQP: Final = "0.3.0"
"""Version of the AMQP bindings."""
ANSWERS: Final[tuple[type, ...]] = get_args(a.Answer)
REQUESTS: Final[tuple[type, ...]] = get_args(q.Request)
_TRACE = {"type": "string", "description": "W3C trace context; may be left out."}
_SCHEMA = {"type": "integer", "const": wire.SCHEMA, "description": "Number of the protocol."}
_CHUNKS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "update-chunk": ("One frame of an update: see *Updates* and *Frames*.", ("update",)),
    "version-chunk": ("One frame of a version: see *The model log* and *Frames*.", (m.DELTA, m.SNAPSHOT)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """All of them by their id in the document, and the schemas that they share."""

    by_id: Mapping[str, Schema]
    schemas: Mapping[str, Schema]
    events: tuple[str, ...] = field(default=())


def all_messages() -> Messages:
    """Make them of the types."""
    said = [kind for kind in wire.TYPES.values() if kind not in (m.Chunk, m.Event)]
    asked = [kind for kind in REQUESTS if kind is not q.PartQuery]
    schemas = schemas_of([*said, *asked, q.PartQuery, *ANSWERS])
    of_events = dict(_events())
    found = {
        **{wire.NAMES[kind]: _json_message(kind, schemas) for kind in said},
        **dict(_chunks()),
        **of_events,
        **{f"submit-{kind}": _submit(kind) for kind in KINDS},
        **dict(_requests(schemas)),
        **dict(_answers(schemas)),
        "part": _part(),
        "dead-letter": _dead_letter(),
    }
    return Messages(by_id=found, schemas=schemas.shared, events=tuple(of_events))


def _message(
    name: str, *, title: str, words: str, payload: Schema, headers: Schema, content_type: str = wire.JSON
) -> Schema:
    return {
        "name": name,
        "title": title,
        "summary": words.partition("\n")[0],
        "description": words,
        "contentType": content_type,
        "headers": headers,
        "payload": payload,
        "bindings": {"amqp": {"messageType": name, "bindingVersion": AMQP}},
    }


def _headers(**own: Schema) -> Schema:
    required = ["schema", *own]
    return {"type": "object", "required": required, "properties": {"schema": _SCHEMA, **own, "traceparent": _TRACE}}


def _free_headers(**own: Schema) -> Schema:
    return {"type": "object", "properties": own}


def _json_message(kind: Any, schemas: Schemas) -> Schema:
    name = wire.NAMES[kind]
    found = _message(name, title=kind.__name__, words=words_of(kind), payload=schemas.of[kind], headers=_headers())
    examples = [_example(message) for message in EXAMPLES if type(message) is kind]
    return found | ({"examples": examples} if examples else {})


def _example(message: wire.Message) -> Schema:
    encoded = wire.encode(message)
    return {"headers": dict(encoded.headers), "payload": json.loads(encoded.body)}


def _chunks() -> Iterator[tuple[str, Schema]]:
    for name, (words, parts) in _CHUNKS.items():
        headers = _headers(
            job={"type": "string", "pattern": f"^{m.NAME.pattern}$"},
            transfer={"type": "string", "description": "The update id, or the version as text."},
            part={"type": "string", "enum": list(parts)},
            index={"type": "integer", "minimum": 0},
            count={"type": "integer", "minimum": 1, "description": "Chunks of this part; the same in each."},
        )
        payload = {"type": "string", "format": "binary", "description": "One frame."}
        yield (
            name,
            _message(
                wire.NAMES[m.Chunk], title=name, words=words, payload=payload, headers=headers, content_type=wire.FRAME
            ),
        )


def _events() -> Iterator[tuple[str, Schema]]:
    for kind, cls in events.BY_KIND.items():
        whole = TypeAdapter(cls).json_schema()
        facts = {name: one for name, one in whole["properties"].items() if name in fact_names(cls)}
        needed = [name for name in whole.get("required", ()) if name in facts]
        payload = {
            "type": "object",
            "required": ["at", "job", "site", "kind", "text"],
            "properties": {
                "at": {"type": "number", "description": "Seconds since the epoch, by the aggregator's clock."},
                "job": {"type": "string"},
                "site": {"type": "string"},
                "kind": {"type": "string", "const": kind},
                "text": {"type": "string", "description": "The event for people."},
                "facts": tidy({"type": "object", "properties": facts} | ({"required": needed} if needed else {})),
            },
        }
        message = _message(
            wire.NAMES[m.Event], title=cls.__name__, words=words_of(cls), payload=payload, headers=_headers()
        )
        yield f"event-{kind}", message


def _submit(kind: str) -> Schema:
    words = summary_of(KINDS[kind]) + ". Its schema is `deploy/job.schema.json`, also printed by `fedbus schema job`."
    job = {"type": "string", "pattern": f"^{m.NAME.pattern}$", "description": "The id that the job is to get."}
    payload = {
        "type": "object",
        "required": ["name", "task", *([] if kind == "training" else ["kind"])],
        "properties": {"name": {"type": "string"}, "task": {"type": "string"}, "kind": {"const": kind}},
        "externalDocs": {"url": "https://json-schema.org", "description": "deploy/job.schema.json has all keys."},
    }
    return _message(
        "submit",
        title=f"submit a job of kind {kind}",
        words=words,
        payload=payload,
        headers=_free_headers(**{m.JOB_HEADER: job}),
    )


def _requests(schemas: Schemas) -> Iterator[tuple[str, Schema]]:
    for kind in REQUESTS:
        name = kind.__name__.removesuffix("Query").lower()
        what = q.NAMES.get(kind)
        schema = dict(schemas.shared[kind.__name__])
        properties = dict(schema.get("properties", {}))
        required = list(schema.get("required", ()))
        if what is None:
            properties.pop("job")
            required.remove("job")
        else:
            properties = {"what": {"const": what}, **properties}
            required = [*([] if kind is q.JobsQuery else ["what"]), *required]
        if kind is q.Forget:
            properties, required = {"forget": {"const": True}}, ["forget"]
        payload = {"type": "object", "properties": properties} | ({"required": required} if required else {})
        amqp_type = name if what is None else "query"
        yield (
            f"ask-{name}" if what else name,
            _message(amqp_type, title=kind.__name__, words=words_of(kind), payload=payload, headers=_free_headers()),
        )


def _answers(schemas: Schemas) -> Iterator[tuple[str, Schema]]:
    for kind in ANSWERS:
        wrapped = a.WRAPPED.get(kind)
        inner = schemas.of[kind]
        payload = (
            inner if wrapped is None else {"type": "object", "required": [wrapped], "properties": {wrapped: inner}}
        )
        words = words_of(kind)
        yield (
            f"answer-{wrapped or kind.__name__.lower()}",
            _message("answer", title=kind.__name__, words=words, payload=payload, headers=_free_headers()),
        )


def _part() -> Schema:
    digest = {"type": "string", "description": "BLAKE2b of the body, 16 bytes, in hex digits."}
    return _message(
        "part",
        title="Part",
        words="Bytes of params that are being fetched: from `offset` on, at most `part_bytes` of the offer.",
        payload={"type": "string", "format": "binary"},
        headers=_free_headers(digest=digest),
        content_type="application/octet-stream",
    )


def _dead_letter() -> Schema:
    return _message(
        "any",
        title="DeadLetter",
        words="A message that broke the rules, as it came, for the operator to look at; of a long body the beginning.",
        payload={"description": "The body as it came."},
        headers=_free_headers(reason={"type": "string", "description": "What was expected and what came."}),
        content_type="application/octet-stream",
    )
