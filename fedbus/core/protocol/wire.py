"""Messages to bytes and back: what stands in an AMQP body and its headers.

What lives here: the table of message types, JSON bodies, the flat headers of chunks, the schema number. What may not:
AMQP itself (see `fedbus.bus.post`), tensors, frames (see `core.protocol.frames`).

    JSON body     every message but chunks: keys as the fields of `messages`, sorted, no spaces; unknown keys are
                  ignored, so that a site may be one release behind its aggregator; a key that stands there twice and
                  a value of another type (numbers as text, true for 1) are refused; see `limits` too
    chunk         body = one frame; flat scalar headers job, transfer, part, index, count (streams drop nested ones)
    header schema the protocol's number; a message with another number is refused, never guessed at
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedbus.core.protocol import activities, effort
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.limits import within_limits
from fedbus.errors import DecodeError

SCHEMA = 1
JSON = "application/json"
FRAME = "application/vnd.fedbus.frame"

Message = (
    m.Join
    | m.SiteStatus
    | m.Leave
    | m.OfferAnswer
    | m.ScoreAnswer
    | m.StatisticsAnswer
    | m.ResyncRequest
    | m.TrainerTrouble
    | m.RollCall
    | m.JobOffer
    | m.InitialParamsRequest
    | m.JobStarted
    | m.Receipt
    | m.StepBudget
    | m.ResendRequest
    | m.ScoreRequest
    | m.StatisticsRequest
    | m.JobEnded
    | m.JobForgotten
    | m.CertificateRenewed
    | m.RevocationLists
    | m.Chunk
    | m.UpdateManifest
    | m.VersionManifest
    | m.Event
)

TYPES: dict[str, type[Message]] = {
    "join": m.Join,
    "status": m.SiteStatus,
    "leave": m.Leave,
    "offer-answer": m.OfferAnswer,
    "score-answer": m.ScoreAnswer,
    "statistics-answer": m.StatisticsAnswer,
    "resync": m.ResyncRequest,
    "trainer-trouble": m.TrainerTrouble,
    "roll-call": m.RollCall,
    "offer": m.JobOffer,
    "initial-params": m.InitialParamsRequest,
    "job-started": m.JobStarted,
    "receipt": m.Receipt,
    "step-budget": m.StepBudget,
    "resend": m.ResendRequest,
    "score": m.ScoreRequest,
    "statistics": m.StatisticsRequest,
    "job-ended": m.JobEnded,
    "job-forgotten": m.JobForgotten,
    "certificate-renewed": m.CertificateRenewed,
    "revocation-lists": m.RevocationLists,
    "chunk": m.Chunk,
    "update": m.UpdateManifest,
    "version": m.VersionManifest,
    "event": m.Event,
}
NAMES = {cls: name for name, cls in TYPES.items()}
_ALWAYS_SAID = object()
MAX_JSON_BYTES = 8 << 20
_MAYBE_NOT_FINITE = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A message as bytes: AMQP property `type`, headers, body, `content_type`."""

    type: str
    headers: Mapping[str, str | int]
    body: bytes
    content_type: str


@cache
def _adapter(type_name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[type_name])


def to_json(data: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. NaN is refused, for it is not JSON."""
    text = json.dumps(data, default=_fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode()


def _fields(message: object) -> dict[str, Any]:
    """A message as a mapping; unlike `dataclasses.asdict` it copies nothing, which cost more than the JSON."""
    cls: Any = type(message)
    said = ((name, getattr(message, name), unsaid) for name, unsaid in _fields_of(cls))
    return {name: value for name, value, unsaid in said if value != unsaid}


@cache
def _fields_of(cls: type) -> tuple[tuple[str, object], ...]:
    """Its fields, and the value with which each is left out."""
    return tuple((f.name, _default(f) if f.metadata.get("unsaid") else _ALWAYS_SAID) for f in dataclasses.fields(cls))


def _default(field: dataclasses.Field[Any]) -> object:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def encode(message: Message) -> Encoded:
    """Turn a message into bytes."""
    name = NAMES[type(message)]
    if isinstance(message, m.Chunk):
        headers: dict[str, str | int] = {
            "schema": SCHEMA,
            "job": message.job,
            "transfer": message.transfer,
            "part": message.part,
            "index": message.index,
            "count": message.count,
        }
        return Encoded(type=name, headers=headers, body=message.body, content_type=FRAME)
    return Encoded(type=name, headers={"schema": SCHEMA}, body=to_json(message), content_type=JSON)


def decode(type_name: str | None, headers: Mapping[str, object], body: bytes) -> Message:
    """Turn bytes into a message.

    Raises DecodeError with what was expected and what came; never anything else, whatever the bytes.
    """
    schema = headers.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise DecodeError(f"expected header schema {SCHEMA}, got {schema!r}: the sender runs another fedbus release")
    cls = TYPES.get(type_name or "")
    if cls is None:
        raise DecodeError(f"expected a message type of {', '.join(TYPES)}; got {type_name!r}")
    if cls is m.Chunk:
        return _decode_chunk(headers, body)
    if len(body) > MAX_JSON_BYTES:
        raise DecodeError(f"message {type_name}: body of {len(body)} bytes, at most {MAX_JSON_BYTES} are read")
    try:
        message: Message = _adapter(str(type_name)).validate_json(_of_this_release(cls, body), strict=True)
        _check_keys(body)
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in exc.errors()[:5])
        raise DecodeError(f"message {type_name}: {problems}") from exc
    except RecursionError as exc:
        raise DecodeError(f"message {type_name}: nested too deeply") from exc
    except ValueError as exc:
        raise DecodeError(f"message {type_name}: {exc}") from exc
    _check_finite(str(type_name), body, message)
    _check_names(message)
    return _within_limits(message)


def _of_this_release(cls: type[Message], body: bytes) -> bytes:
    """A manifest or a status of another release as this one writes it; all else as it is."""
    lift: Callable[[Mapping[str, Any]], dict[str, Any]]
    if cls is m.UpdateManifest and b'"effort"' not in body:
        lift = effort.lifted
    elif cls is m.SiteStatus:
        lift = activities.lifted
    else:
        return body
    try:
        said = json.loads(body)
        return json.dumps(lift(said)).encode() if isinstance(said, dict) else body
    except (ValueError, RecursionError):
        return body


def _within_limits(message: Message) -> Message:
    try:
        bounded: Message = within_limits(message)
    except ValueError as exc:
        raise DecodeError(str(exc)) from exc
    return bounded


def _check_keys(body: bytes) -> None:
    """Raise ValueError for an object with a key twice: readers differ in which of the two values they take."""
    json.loads(body, object_pairs_hook=distinct)


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys and values, for `json.loads`. Raises ValueError when a key stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"key {key[:40]!r} stands there twice")
    return found


def _check_finite(type_name: str, body: bytes, message: Message) -> None:
    """Raise DecodeError for NaN and infinity: no JSON, and nobody could be told of them in an event.

    Only words and very large numbers can be that, so that most bodies are not looked at twice.
    """
    if not _MAYBE_NOT_FINITE.search(body):
        return
    try:
        to_json(message)
    except ValueError as exc:
        raise DecodeError(f"message {type_name}: every number must be finite") from exc


def _check_names(message: Message) -> None:
    """Raise DecodeError for a job or site that cannot be one: names become routing keys and folders."""
    for what in ("job", "site"):
        name = getattr(message, what, None)
        if name is not None:
            try:
                m.check_name(what, name)
            except ValueError as exc:
                raise DecodeError(str(exc)) from exc


def _decode_chunk(headers: Mapping[str, object], body: bytes) -> m.Chunk:
    chunk = m.Chunk(
        job=_text(headers, "job"),
        transfer=_text(headers, "transfer"),
        part=_text(headers, "part"),
        index=_number(headers, "index"),
        count=_number(headers, "count"),
        body=body,
    )
    if not 0 <= chunk.index < chunk.count:
        raise DecodeError(f"chunk: index {chunk.index} is not below count {chunk.count}")
    _check_names(chunk)
    return chunk


def _text(headers: Mapping[str, object], key: str) -> str:
    value = headers.get(key)
    if not isinstance(value, str):
        raise DecodeError(f"chunk: header {key} must be a string, got {value!r}")
    return value


def _number(headers: Mapping[str, object], key: str) -> int:
    value = headers.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DecodeError(f"chunk: header {key} must be an integer, got {value!r}")
    return value
