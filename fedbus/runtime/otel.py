"""Tracing by the SDK of OpenTelemetry, exported as OTLP over HTTP. The only module that imports opentelemetry."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace import Span as OtelSpan

import fedbus
from fedbus.errors import SettingsError
from fedbus.runtime.tracing import Span, Step, ids_of, parse

MOST_KEYS = 4096
"""Of so many updates and versions it is known where their newest span stands."""
CLOSE_S = 2.0
TOLD_S = 600.0
# of the registry of semantic conventions, where messaging is in development: names stand here alone
SYSTEM, DESTINATION = "messaging.system", "messaging.destination.name"
OPERATION, OPERATION_NAME = "messaging.operation.type", "messaging.operation.name"
CONVERSATION, MESSAGE, BODY_BYTES = (
    "messaging.message.conversation_id",
    "messaging.message.id",
    "messaging.message.body.size",
)
ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"
NAMES = {"body_bytes": BODY_BYTES, "routing_key": ROUTING_KEY}
"""Facts that have a standard name; others are `fedbus.<name>`."""


class _Ids(IdGenerator):
    """Random, but for the next trace and span where they are set."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.next: tuple[int, int] | None = None

    def any_span(self) -> int:
        return self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        return self._random.generate_trace_id() if self.next is None else self.next[0]

    def generate_span_id(self) -> int:
        return self._random.generate_span_id() if self.next is None else self.next[1]


class _Seldom(logging.Filter):
    """A collector that is away is told of once in TOLD_S, and not with every batch of a night."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        tell = record.created - self._told_at >= TOLD_S
        self._told_at = record.created if tell else self._told_at
        return tell


class _OtelSpan:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, **facts: str | int | float) -> None:
        self.end_at(None, facts)

    def end_at(self, at: float | None, facts: Mapping[str, str | int | float]) -> None:
        self._span.set_attributes({NAMES.get(name, f"fedbus.{name}"): value for name, value in facts.items()})
        self._span.end(None if at is None else _ns(at))


class OtelTracing:
    """Of one daemon, by the variables OTEL_*; `instance` is its name in the federation. Raises SettingsError."""

    on = True

    def __init__(self, daemon: str, instance: str, *, exporter: SpanExporter | None = None) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=_resource(daemon, instance), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter()))
        self._tracer = self._provider.get_tracer("fedbus", fedbus.__version__)
        self._newest: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def begin(
        self, step: Step, key: str, *, came: str = "", links: Iterable[str] = (), began_at: float | None = None
    ) -> Span:
        return self._begin(step, key, came=came, links=links, began_at=began_at)

    def record(self, step: Step, key: str, *, began_at: float, ended_at: float) -> None:
        self._begin(step, key, came="", links=(), began_at=began_at).end_at(ended_at, {})

    def newest(self, key: str) -> str:
        with self._lock:
            return self._newest.get(key, "")

    def close(self) -> None:
        # a collector that is away is asked again for long, and a daemon that is to stop does not wait for it
        ending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(CLOSE_S)

    def _begin(self, step: Step, key: str, *, came: str, links: Iterable[str], began_at: float | None) -> _OtelSpan:
        linked = [Link(context) for link in links if (context := _context(link)) is not None]
        with self._lock:
            parent = self._parent(step, key, came)
            span = _OtelSpan(
                self._tracer.start_span(
                    step.name,
                    context=Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context()),
                    kind=SpanKind[step.role.upper()],
                    attributes=_attributes(step, key),
                    links=linked,
                    start_time=None if began_at is None else _ns(began_at),
                )
            )
            self._ids.next = None
            if not step.leaf:
                self._newest[key] = span.traceparent
                self._newest.move_to_end(key)
            if len(self._newest) > MOST_KEYS:
                self._newest.popitem(last=False)
        return span

    def _parent(self, step: Step, key: str, came: str) -> SpanContext | None:
        """None for a root, whose ids are then set."""
        trace, root = ids_of(key)
        if step.root:
            self._ids.next = trace, root
            return None
        for text in (came, self._newest.get(key, "")):
            context = _context(text)
            if context is not None and (not step.of_key or context.trace_id == trace):
                return context
        if step.of_key:
            return SpanContext(trace, root, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        self._ids.next = trace, self._ids.any_span()
        return None


def _context(traceparent: str) -> SpanContext | None:
    found = parse(traceparent)
    if found is None:
        return None
    trace, span, flags = found
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))


def _attributes(step: Step, key: str) -> dict[str, str]:
    job, _, about = key.partition("/")
    if not step.exchange:
        return {"fedbus.job": job, "fedbus.of": about}
    return {
        SYSTEM: "rabbitmq",
        DESTINATION: step.exchange,
        OPERATION: step.operation,
        OPERATION_NAME: step.operation,
        CONVERSATION: job,
        MESSAGE: about,
    }


def _ns(at: float) -> int:
    return int(at * 1e9)


def _resource(daemon: str, instance: str) -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say counts before this."""
    ours = {
        "service.name": f"fedbus-{daemon}",
        "service.namespace": "fedbus",
        "service.instance.id": instance,
        "service.version": fedbus.__version__,
    }
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())


def _exporter() -> SpanExporter:
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if wanted == "console":
        return ConsoleSpanExporter()
    if wanted != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER: expected otlp, console or none, got {wanted!r}")
    if protocol not in (None, "", "http/protobuf"):
        raise SettingsError(f"OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got {protocol!r}")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_Seldom())
    return OTLPSpanExporter()
