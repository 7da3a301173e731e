"""Where messages go: the topology's table as AsyncAPI's channels, and who says or hears what there.

A channel is a routing key of an exchange where a participant publishes, and a queue or stream where it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fedbus.bus import topology as t
from fedbus.bus.rpc import REPLY_TO
from fedbus.contract.messages import AMQP, ANSWERS, REQUESTS
from fedbus.contract.schemas import Schema
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import requests as q
from fedbus.core.protocol.messages import NAME
from fedbus.core.spec.kinds import KINDS

_VHOST = "/fedbus"
_NAME = f"1 to 40 of a-z, 0-9 and '-': {NAME.pattern}"
_PARAMETERS: Final[Mapping[str, str]] = {
    "site": f"The site's name, which is its login. {_NAME}",
    "job": f"The job's id. {_NAME}",
    "user": f"The submitter's login. {_NAME}",
    "log": "The stream's name, as `job-started` says it.",
}
_CONTROL = (
    "roll-call",
    "offer",
    "initial-params",
    "job-started",
    "receipt",
    "step-budget",
    "resend",
    "score",
    "statistics",
    "job-ended",
    "job-forgotten",
    "certificate-renewed",
    "revocation-lists",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel and its one operation. `who`: the participant; `arguments`: of its queue, which exists.

    exchange: where it publishes; queue: what it reads; replies: the messages that answer.
    """

    id: str
    address: str
    who: str
    says: str
    messages: Sequence[str]
    exchange: str = ""
    queue: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    replies: Sequence[str] = ()
    ttl_s: float | None = None


def channels(events: Sequence[str]) -> tuple[Channel, ...]:
    """All channels; `events`: the messages of fedbus.events."""
    return (*_of_sites(), *_of_submitters(), *_of_watchers(events))


def _of_sites() -> Iterator[Channel]:
    site, job = "{site}", "{job}"
    for kind, words, names, ttl_s in (
        (t.SiteKind.JOIN, "A site is here: after each connect, and after each roll call.", ("join",), None),
        (t.SiteKind.STATUS, "What a site does, every few seconds.", ("status",), t.STATUS_TTL.total_seconds()),
        (t.SiteKind.LEAVE, "A site goes.", ("leave",), None),
        (
            t.SiteKind.ANSWER,
            "What a site answers, asks for again, or has trouble with.",
            ("offer-answer", "score-answer", "statistics-answer", "resync", "trainer-trouble"),
            None,
        ),
    ):
        yield Channel(
            id=f"site-{kind}",
            address=f"{site}.{kind}",
            who="site",
            says=words,
            messages=names,
            exchange=t.SITES,
            ttl_s=ttl_s,
        )
    yield Channel(
        id="updates",
        address=f"{job}.{site}",
        who="site",
        says="The chunks of an update, then its manifest: see *Updates*.",
        messages=("update-chunk", "update"),
        exchange=t.UPDATES,
    )
    queue = t.site_topology("site").queues[0]
    yield Channel(
        id="control",
        address=f"fedbus.site.{site}",
        who="site",
        says="What the aggregator tells a site; bound to fedbus.control by the keys `all` and `site.<site>`.",
        messages=_CONTROL,
        queue=f"fedbus.site.{site}",
        arguments=queue.arguments,
    )
    yield Channel(
        id="model-log",
        address="{log}",
        who="site",
        says="The versions of a job, a stream: see *The model log*. Bound to fedbus.models by the job's id.",
        messages=("version-chunk", "version"),
        queue="{log}",
        arguments={"x-queue-type": "stream"},
    )


def _of_submitters() -> Iterator[Channel]:
    names = {kind: f"ask-{kind.__name__.removesuffix('Query').lower()}" for kind in REQUESTS if kind in q.NAMES}
    answered = [_answer(kind) for kind in ANSWERS]
    for_jobs = {a.Accepted, a.Aborted, a.Forgotten, a.Rejected}
    yield Channel(
        id="submit",
        address="submit.{user}",
        who="submitter",
        says="A job spec is submitted.",
        messages=[f"submit-{kind}" for kind in KINDS],
        exchange=t.JOBS,
        replies=[_answer(a.Accepted), _answer(a.Rejected)],
    )
    yield Channel(
        id="abort",
        address="abort.{job}",
        who="submitter",
        says="A job is to end, or, once it has ended, to be deleted.",
        messages=("abort", "forget"),
        exchange=t.JOBS,
        replies=[_answer(kind) for kind in (a.Aborted, a.Forgotten, a.Rejected)],
    )
    yield Channel(
        id="query",
        address=t.QUERY_KEY,
        who="submitter",
        says="A question.",
        messages=list(names.values()),
        exchange=t.JOBS,
        replies=[*(_answer(kind) for kind in ANSWERS if kind not in for_jobs), _answer(a.Rejected), "part"],
    )
    yield Channel(
        id="replies",
        address=REPLY_TO,
        who="submitter",
        says="Answers, by RabbitMQ's direct reply-to; each has the correlation_id of its question.",
        messages=[*answered, "part"],
        queue=REPLY_TO,
    )


def _of_watchers(events: Sequence[str]) -> Iterator[Channel]:
    queues = {queue.name: queue for queue in t.FEDERATION.queues}
    yield Channel(
        id="events",
        address=t.EVENTS,
        who="watcher",
        says="What happened, a stream: see *Events*. Bound to the exchange of the same name by every key.",
        messages=events,
        queue=t.EVENTS,
        arguments=queues[t.EVENTS].arguments,
    )
    yield Channel(
        id="dead-letters",
        address=t.DEAD,
        who="operator",
        says="What broke the rules, or could not be delivered; no site or submitter may read it.",
        messages=("dead-letter",),
        queue=t.DEAD,
        arguments=queues[t.DEAD].arguments,
    )


def _answer(kind: type) -> str:
    return f"answer-{a.WRAPPED.get(kind) or kind.__name__.lower()}"


def described(channel: Channel) -> Schema:
    """The channel as it stands in the document."""
    parameters = {name: {"description": _PARAMETERS[name]} for name in _PARAMETERS if f"{{{name}}}" in channel.address}
    return {
        "address": channel.address,
        "title": channel.id,
        "description": channel.says,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
        **({"parameters": parameters} if parameters else {}),
        "bindings": {"amqp": _binding(channel)},
        **({"x-queue-arguments": dict(channel.arguments)} if channel.arguments else {}),
    }


def operation(channel: Channel) -> tuple[str, Schema]:
    """What a participant does on the channel."""
    place = f"#/channels/{channel.id}"
    action = "send" if channel.exchange else "receive"
    binding: Schema = {"ack": channel.queue != REPLY_TO} if channel.queue else {"deliveryMode": 2, "mandatory": True}
    if channel.ttl_s is not None:
        binding["expiration"] = int(channel.ttl_s * 1000)
    found: Schema = {
        "action": action,
        "channel": {"$ref": place},
        "title": f"a {channel.who} {'sends' if channel.exchange else 'receives'}",
        "summary": channel.says,
        "tags": [{"name": channel.who}],
        "messages": [{"$ref": f"{place}/messages/{name}"} for name in channel.messages],
        "bindings": {"amqp": {**binding, "bindingVersion": AMQP}},
    }
    if channel.replies:
        found["reply"] = {
            "channel": {"$ref": "#/channels/replies"},
            "messages": [{"$ref": f"#/channels/replies/messages/{name}"} for name in channel.replies],
        }
    return f"{action}-{channel.id}", found


def _binding(channel: Channel) -> Schema:
    if channel.exchange:
        exchange = {"name": channel.exchange, "type": "topic", "durable": True, "autoDelete": False, "vhost": _VHOST}
        return {"is": "routingKey", "exchange": exchange, "bindingVersion": AMQP}
    durable = channel.queue != REPLY_TO
    queue = {"name": channel.queue, "durable": durable, "exclusive": False, "autoDelete": False, "vhost": _VHOST}
    return {"is": "queue", "queue": queue, "bindingVersion": AMQP}
