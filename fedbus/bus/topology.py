"""Every exchange, queue, binding and routing key of fedbus, as plain data.

What lives here: names, arguments and bounds. What may not: AMQP. `definitions` turns this table into RabbitMQ's
definitions.json and logins, the aggregator declares the queues of a job from it, everybody else only uses the names.

    exchange         routing key                       queue                    who publishes → who reads
    fedbus.jobs      submit.<user> abort.<job> query   fedbus.jobs              submitter → aggregator
    fedbus.sites     <site>.join|status|leave|answer   fedbus.sites             site → aggregator
    fedbus.updates   <job>.<site>                      fedbus.updates.<job>     site → aggregator
    fedbus.models    <job>                             fedbus.models.<job>.<s>  aggregator → sites of the job (stream;
                                                                                with kits its name ends in its readers)
    fedbus.control   all  site.<site>                  fedbus.site.<site>       aggregator → site
    fedbus.events    <job>.<site>.<kind>               fedbus.events            aggregator → watchers (stream)
    fedbus.dead      <origin>                          fedbus.dead              whatever was refused

Rules, each for a reason seen on a real broker: all exchanges are durable topic exchanges; all queues are durable and
name their `x-queue-type`; nothing is exclusive, auto-delete or server-named; a delivery limit is always given, because
RabbitMQ 4 drops after 20 deliveries when it is not.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from fedbus.bus.log_readers import ALL_READERS, READERS
from fedbus.core.protocol.messages import NAME, check_name

JOBS = "fedbus.jobs"
SITES = "fedbus.sites"
UPDATES = "fedbus.updates"
MODELS = "fedbus.models"
CONTROL = "fedbus.control"
EVENTS = "fedbus.events"
DEAD = "fedbus.dead"

# Per message, set by the publisher: a queue-wide limit would also drop answers while the aggregator is away.
STATUS_TTL = timedelta(seconds=60)
CONTROL_TTL = timedelta(hours=1)
# A spec that kills the aggregator every time ends in fedbus.dead; an update never does, however often it crashes.
JOB_DELIVERIES = 20
UNLIMITED_DELIVERIES = 1_000_000
UPDATES_BACKLOG_BYTES = 1 << 30
# The broker takes nothing longer: a chunk has at most 8 MiB, and what stands around it.
MAX_MESSAGE_BYTES = 9 << 20
MB = 1_000_000
_AFTER_JOB = re.compile(rf"\.{NAME.pattern}(\.({READERS.pattern}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSpec:
    """A durable exchange."""

    name: str
    kind: str = "topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A durable queue or stream; `arguments` always hold `x-queue-type`."""

    name: str
    arguments: Mapping[str, str | int | bool]

    def __post_init__(self) -> None:
        if "x-queue-type" not in self.arguments:
            raise ValueError(f"queue {self.name!r} must name its x-queue-type")
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSpec:
    """Messages of `exchange` whose key matches `key` go to `queue`."""

    exchange: str
    key: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Some exchanges, queues and bindings, to be declared in this order."""

    exchanges: tuple[ExchangeSpec, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    bindings: tuple[BindingSpec, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            exchanges=self.exchanges + other.exchanges,
            queues=self.queues + other.queues,
            bindings=self.bindings + other.bindings,
        )


class SiteKind(StrEnum):
    """Last word of a key on fedbus.sites. Offer answers, scores, resync requests and trouble share `answer`."""

    JOIN = "join"
    STATUS = "status"
    LEAVE = "leave"
    ANSWER = "answer"


# ------------------------------------------------------------------ names


def updates_queue(job: str) -> str:
    return f"{UPDATES}.{check_name('job', job)}"


def models_stream(job: str, secret: str = "", readers: str = "") -> str:
    """Name of a job's model log; without a secret that of earlier releases, which everybody can guess.

    Without kits any site may read every `fedbus.models.*`: permissions are made with the login, before there are jobs.
    So a name that nobody can guess, told to the sites of the job only, is what keeps the others out. With kits the
    name ends in who may read it, see `log_readers`, and the broker refuses everybody else.
    """
    name = f"{MODELS}.{check_name('job', job)}"
    if readers and not READERS.fullmatch(readers):
        raise ValueError(
            f"readers of a model log must be {ALL_READERS!r} or at most 160 hex digits, got {readers[:20]!r}"
        )
    return ".".join([name, *([check_name("secret", secret)] if secret else ()), *([readers] if readers else ())])


def new_models_stream(job: str, readers: str = "") -> str:
    """A name for a model log, drawn anew each time: 128 bits that are in no other name."""
    return models_stream(job, secrets.token_hex(16), readers)


def another_models_stream(job: str, stream: str) -> str:
    """A new name for a model log, with the readers of the one that it takes the place of; "" has none."""
    last = stream.rpartition(".")[2]
    return new_models_stream(job, last if READERS.fullmatch(last) and stream.count(".") > 3 else "")


def is_models_stream(name: str, job: str) -> bool:
    """Whether this can be the name of the model log of `job`."""
    base = models_stream(job)
    return name == base or (name.startswith(base) and _AFTER_JOB.fullmatch(name[len(base) :]) is not None)


def site_queue(site: str) -> str:
    return f"fedbus.site.{check_name('site', site)}"


# ------------------------------------------------------------------ routing keys


QUERY_KEY = "query"


def submit_key(user: str) -> str:
    return f"submit.{check_name('user', user)}"


def abort_key(job: str) -> str:
    return f"abort.{check_name('job', job)}"


def site_key(site: str, kind: SiteKind) -> str:
    return f"{check_name('site', site)}.{SiteKind(kind)}"


def update_key(job: str, site: str) -> str:
    return f"{check_name('job', job)}.{check_name('site', site)}"


def models_key(job: str) -> str:
    return check_name("job", job)


def control_key_all() -> str:
    return "all"


def control_key_site(site: str) -> str:
    return f"site.{check_name('site', site)}"


def event_key(job: str, site: str, kind: str) -> str:
    """Key of an event; who stands for no job or no site is `events.NOBODY`, for a word of a key must not be empty."""
    return f"{job}.{site}.{kind}"


def dead_key(origin: str) -> str:
    """Key on fedbus.dead of something refused from queue `origin`, such as `updates.<job>`."""
    return origin.removeprefix("fedbus.")


# ------------------------------------------------------------------ the table


def _dead_letters_to(origin: str) -> dict[str, str | int | bool]:
    return {"x-dead-letter-exchange": DEAD, "x-dead-letter-routing-key": dead_key(origin)}


FEDERATION = Topology(
    exchanges=tuple(ExchangeSpec(name=name) for name in (JOBS, SITES, UPDATES, MODELS, CONTROL, EVENTS, DEAD)),
    queues=(
        QueueSpec(
            name=JOBS,
            arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-max-length": 1000,
                "x-overflow": "reject-publish",
                "x-delivery-limit": JOB_DELIVERIES,
                **_dead_letters_to(JOBS),
            },
        ),
        QueueSpec(
            name=SITES,
            arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-max-length": 10_000,
                "x-overflow": "drop-head",
                "x-delivery-limit": UNLIMITED_DELIVERIES,
            },
        ),
        QueueSpec(
            name=EVENTS,
            arguments={
                "x-queue-type": "stream",
                "x-max-age": "7D",
                "x-max-length-bytes": 1000 * MB,
                "x-stream-max-segment-size-bytes": 50 * MB,
            },
        ),
        QueueSpec(
            name=DEAD,
            arguments={
                "x-queue-type": "quorum",
                "x-max-length-bytes": 256 * MB,
                "x-overflow": "drop-head",
                "x-delivery-limit": UNLIMITED_DELIVERIES,
            },
        ),
    ),
    bindings=(
        BindingSpec(exchange=JOBS, key="#", queue=JOBS),
        BindingSpec(exchange=SITES, key="#", queue=SITES),
        BindingSpec(exchange=EVENTS, key="#", queue=EVENTS),
        BindingSpec(exchange=DEAD, key="#", queue=DEAD),
    ),
)
"""What every federation has before any site or job exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """How many bytes may wait in the queues whose names match.

    A policy and not an argument of the queue: one that exists cannot be declared again with another argument.
    """

    name: str
    pattern: str
    max_bytes: int


POLICIES = (
    PolicySpec(name="fedbus-sites", pattern=r"^fedbus\.sites$", max_bytes=256 * MB),
    PolicySpec(name="fedbus-jobs", pattern=r"^fedbus\.jobs$", max_bytes=256 * MB),
    PolicySpec(name="fedbus-site", pattern=r"^fedbus\.site\.", max_bytes=64 * MB),
)
"""Bounds in bytes of what is otherwise bounded by the number of messages."""


def site_topology(site: str) -> Topology:
    """The control queue of one site, made when the site is enrolled. Control messages expire after CONTROL_TTL."""
    queue = QueueSpec(
        name=site_queue(site),
        arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": int(CONTROL_TTL.total_seconds() * 1000),
            "x-max-length": 1000,
            "x-overflow": "drop-head",
            "x-delivery-limit": UNLIMITED_DELIVERIES,
        },
    )
    keys = (control_key_all(), control_key_site(site))
    return Topology(
        queues=(queue,),
        bindings=tuple(BindingSpec(exchange=CONTROL, key=key, queue=queue.name) for key in keys),
    )


def job_updates(job: str, *, max_backlog_bytes: int = UPDATES_BACKLOG_BYTES) -> Topology:
    """The updates queue of one job; what comes in is bound site by site, see `updates_from`.

    Above `max_backlog_bytes` unread bytes publishes are refused (back-pressure). That bounds the backlog, not the size
    of an update: the aggregator acks chunks as soon as they are spooled.
    """
    queue = QueueSpec(
        name=updates_queue(job),
        arguments={
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-max-length-bytes": max_backlog_bytes,
            "x-overflow": "reject-publish",
            "x-delivery-limit": UNLIMITED_DELIVERIES,
            **_dead_letters_to(updates_queue(job)),
        },
    )
    return Topology(queues=(queue,))


def updates_from(job: str, site: str) -> BindingSpec:
    """Brings the updates of `site` into the queue of `job`; the aggregator binds it when the site has accepted."""
    return BindingSpec(exchange=UPDATES, key=update_key(job, site), queue=updates_queue(job))


def updates_from_anybody(job: str) -> BindingSpec:
    """What earlier releases bound for every job."""
    return BindingSpec(exchange=UPDATES, key=f"{check_name('job', job)}.*", queue=updates_queue(job))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLogSize:
    """What the model log of a job must hold: sizes in bytes as they travel.

    `snapshot_bytes` is one whole model, `delta_bytes` one version's delta, `snapshot_every` the versions from one
    snapshot to the next.
    """

    snapshot_bytes: int
    delta_bytes: int
    snapshot_every: int

    segment_bytes: int = field(init=False)
    retention_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        # Retention works by whole segments and never touches the newest, so a segment is about one model.
        segment = min(max(self.snapshot_bytes, 16 * MB), 500 * MB)
        # Two periods: a joiner that has found the newest snapshot still finds it while the next one is written.
        period = self.snapshot_bytes + self.delta_bytes * max(1, self.snapshot_every)
        object.__setattr__(self, "segment_bytes", segment)
        object.__setattr__(self, "retention_bytes", max(2 * period, 4 * self.snapshot_bytes) + 2 * segment)


def job_models(job: str, size: ModelLogSize, *, stream: str = "") -> Topology:
    """The model log of one job: a stream, because one publish then serves every site, early or late.

    `stream` is its name; "" for that of earlier releases.
    """
    log = QueueSpec(
        name=stream or models_stream(job),
        arguments={
            "x-queue-type": "stream",
            "x-max-length-bytes": size.retention_bytes,
            "x-stream-max-segment-size-bytes": size.segment_bytes,
        },
    )
    binding = BindingSpec(exchange=MODELS, key=models_key(job), queue=log.name)
    return Topology(queues=(log,), bindings=(binding,))
