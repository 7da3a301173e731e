"""What submitters ask: a job spec, an abort, a query; each is answered in JSON when it names a `reply_to`.

    request                       answer
    a job spec (submit.<user>)    Accepted
    Abort, Forget                 Aborted, Forgotten
    JobsQuery, SitesQuery         Jobs, Sites
    EndedQuery                    Ended
    JobQuery                      JobDetail
    HistoryQuery                  History
    ParamsQuery                   ParamsOffer
    PartQuery                     bytes from there on, their blake2b as header `digest`
    any of these                  Rejected, when it cannot be met

How they look as JSON stands in `core.protocol.requests` and `core.protocol.answers`.

Any AMQP client can send these: no header and no type of fedbus is needed, only JSON and `user_id` (which the broker
checks; most clients set it when asked).

A header `job` on a submit is the id that the job gets, a name of its own that the sender can look for from then on,
whoever answers; without one the aggregator makes one of the message id. A submit that comes twice, under one message
id, is one job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbus.bus.envelope import Envelope
from fedbus.core.protocol import messages, wire
from fedbus.core.protocol import requests as q
from fedbus.core.protocol.limits import plain
from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.text import MAX_TEXT_BYTES, load_json
from fedbus.errors import JobSpecError, Problem

MOST_PART_REQUEST = 200


def body_of(envelope: Envelope) -> Mapping[str, Any]:
    """The JSON object of a request; an empty body is an empty object. Raises JobSpecError otherwise."""
    size = envelope.refused_bytes or len(envelope.body)
    if size > MAX_TEXT_BYTES:
        message = f"the body has {size} bytes, at most {MAX_TEXT_BYTES} are read"
        raise JobSpecError([Problem(path="", message=message)])
    if not envelope.body.strip():
        return {}
    try:
        data = load_json(envelope.body)
        wire.to_json(data)  # Python also reads NaN and half surrogates, which nobody could be told again
    except (ValueError, RecursionError) as exc:
        raise JobSpecError([Problem(path="", message=f"the body is not JSON: {exc}")]) from exc
    if not isinstance(data, dict):
        message = f"the body must be a JSON object, got a {type(data).__name__}"
        raise JobSpecError([Problem(path="", message=message)])
    return data


def spec_of(envelope: Envelope) -> JobSpec:
    """The job spec of a submit. Raises JobSpecError with every problem."""
    return kinds.parse(body_of(envelope))


def job_id(spec: JobSpec, message_id: str) -> str:
    """Name and eight hex digits; the same message gives the same id, so that a repeated submit makes no second job."""
    return messages.id_of_submit(spec.name, message_id)


def query_of(envelope: Envelope) -> q.Query:
    """What a query asks. Raises JobSpecError with what is wrong in it."""
    return q.query_of(body_of(envelope))


def is_part(envelope: Envelope) -> bool:
    """Whether a query asks for a part of params: many are asked for, and each costs little."""
    if len(envelope.body) > MOST_PART_REQUEST:
        return False
    try:
        return isinstance(query_of(envelope), q.PartQuery)
    except JobSpecError:
        return False


def wanted_id(envelope: Envelope) -> str | None:
    """The id that a submit wants for its job; None: it leaves that to the aggregator. JobSpecError when it is none."""
    wanted = envelope.headers.get(messages.JOB_HEADER)
    if wanted is None:
        return None
    try:
        return messages.check_name("job", str(wanted))
    except ValueError as exc:
        message = f"{plain(str(exc))}; correct it or leave the header out, then the aggregator makes an id"
        raise JobSpecError([Problem(path=f"header {messages.JOB_HEADER}", message=message)]) from exc
