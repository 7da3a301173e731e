"""One trace an update, from the training to the version it is part of, for OpenTelemetry.

    site          update ┬ train
                         ├ encode
                         └ send fedbus.updates          its span travels in the header `traceparent` of the messages
    aggregator                └ receive fedbus.updates
                                   └ fold
                                        └ commit        in the trace of each update of the version
                                             └ send fedbus.models
    site                                          └ receive fedbus.models
                                                       └ apply

A version is made of many updates: what follows their commits stands in the trace of the update that came last, whose
commit has links to those of the others, and they one to it. A key names what a span is about, `job/update` or
`job/version`. A trace id is made of the key, so that a resend, a restart and a receipt are part of the same trace; of
what a site sends in its header only the span is believed, and only within that trace.

Off, unless a variable OTEL_* asks for it; then nothing of opentelemetry is imported. The trainer, which runs code of a
task, exports nothing: its site speaks for it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

HEADER = "traceparent"
SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A kind of span. root: of its trace. leaf: nothing stands below it. exchange: what it goes over.

    of_key: it can only be part of the trace that its key has.
    """

    name: str
    role: str = "internal"
    root: bool = False
    leaf: bool = False
    of_key: bool = True
    exchange: str = ""
    operation: str = ""


UPDATE = Step(name="update", root=True)
TRAIN = Step(name="train", leaf=True)
ENCODE = Step(name="encode", leaf=True)
SEND_UPDATE = Step(name="send fedbus.updates", role="producer", exchange="fedbus.updates", operation="send")
RECEIVE_UPDATE = Step(name="receive fedbus.updates", role="consumer", exchange="fedbus.updates", operation="receive")
FOLD = Step(name="fold")
COMMIT = Step(name="commit")
SEND_VERSION = Step(
    name="send fedbus.models", role="producer", of_key=False, exchange="fedbus.models", operation="send"
)
RECEIVE_VERSION = Step(
    name="receive fedbus.models", role="consumer", of_key=False, exchange="fedbus.models", operation="receive"
)
APPLY = Step(name="apply", of_key=False)


class Span(Protocol):
    """One that was begun. `traceparent` says where it stands, as W3C does; "" when nothing is traced."""

    @property
    def traceparent(self) -> str: ...

    def end(self, **facts: str | int | float) -> None:
        """It is over now; facts become attributes."""


class Tracing(Protocol):
    """Where a daemon says what took how long. Any thread may call. Times are seconds since the epoch."""

    on: bool

    def begin(
        self,
        step: Step,
        key: str,
        *,
        came: str = "",
        links: Iterable[str] = (),
        began_at: float | None = None,
    ) -> Span:
        """A span below `came`, where that can be; else below the newest of the same key that is known here.

        came and links: as in the header. With neither it is the root of the trace, or stands below that.
        """

    def record(self, step: Step, key: str, *, began_at: float, ended_at: float) -> None:
        """A span that is over."""

    def newest(self, key: str) -> str:
        """Where the newest span of a key stands, for the header of what is sent; "" for none."""

    def close(self) -> None:
        """Send what waits, for a moment."""


class NoSpan:
    traceparent = ""

    def end(self, **facts: str | int | float) -> None: ...


NO_SPAN = NoSpan()


class NoTracing:
    """Traces nothing."""

    on = False

    def begin(
        self,
        step: Step,
        key: str,
        *,
        came: str = "",
        links: Iterable[str] = (),
        began_at: float | None = None,
    ) -> Span:
        return NO_SPAN

    def record(self, step: Step, key: str, *, began_at: float, ended_at: float) -> None: ...

    def newest(self, key: str) -> str:
        return ""

    def close(self) -> None: ...


def ids_of(key: str) -> tuple[int, int]:
    """The trace of a key, and the span that is its root."""
    trace = hashlib.blake2b(key.encode(), digest_size=16).digest()
    span = hashlib.blake2b(f"{key}/root".encode(), digest_size=8).digest()
    return int.from_bytes(trace) or 1, int.from_bytes(span) or 1


def parse(traceparent: object) -> tuple[int, int, int] | None:
    """Trace, span and flags of a header; None for one that is none, whatever came."""
    found = _FORM.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if found is None:
        return None
    trace, span, flags = (int(part, 16) for part in found.groups())
    return (trace, span, flags) if trace and span else None


def asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environ.get(name) for name in SWITCHES)


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
